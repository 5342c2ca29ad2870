#include "preprocess/canvas.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <optional>

namespace zoetrope::preprocess {
namespace {

// Coordinates between pixels have this many binary places.
constexpr int kPlaces = 16;
constexpr std::int64_t kOne = std::int64_t{1} << kPlaces;
constexpr std::int64_t kHalf = kOne / 2;

// Both ends of a line inside [0, width) x [0, height), cut off where it leaves; nothing where no
// part of it is inside.
bool clip(std::int64_t width, std::int64_t height, Pixel& a, Pixel& b) {
    enum : unsigned { kLeft = 1, kRight = 2, kAbove = 4, kBelow = 8 };
    const std::int64_t right = width - 1;
    const std::int64_t bottom = height - 1;
    const auto beside = [&](const Pixel& p) {
        return (p.x < 0 ? kLeft : 0U) | (p.x > right ? kRight : 0U);
    };
    const auto side = [&](const Pixel& p) {
        return beside(p) | (p.y < 0 ? kAbove : 0U) | (p.y > bottom ? kBelow : 0U);
    };
    unsigned at_a = side(a);
    unsigned at_b = side(b);
    const auto partly = [&] { return (at_a & at_b) == 0 && (at_a | at_b) != 0; };
    // The share of the line that is cut off is computed in double and cut to whole numbers.
    const auto cut_rows = [&](Pixel& p, unsigned& at) {
        if ((at & (kAbove | kBelow)) == 0) return;
        const std::int64_t edge = at < kBelow ? 0 : bottom;
        p.x += static_cast<std::int64_t>(static_cast<double>(edge - p.y) *
                                         static_cast<double>(b.x - a.x) /
                                         static_cast<double>(b.y - a.y));
        p.y = edge;
        at = beside(p);
    };
    const auto cut_columns = [&](Pixel& p, unsigned& at) {
        if (at == 0) return;
        const std::int64_t edge = at == kLeft ? 0 : right;
        p.y += static_cast<std::int64_t>(static_cast<double>(edge - p.x) *
                                         static_cast<double>(b.y - a.y) /
                                         static_cast<double>(b.x - a.x));
        p.x = edge;
        at = 0;
    };
    if (partly()) {
        cut_rows(a, at_a);
        cut_rows(b, at_b);
        if (partly()) {
            cut_columns(a, at_a);
            cut_columns(b, at_b);
        }
    }
    return (at_a | at_b) == 0;
}

class Painter {
public:
    Painter(Frame& picture, const Color& color) : picture_(picture), color_(color) {}

    int width() const { return picture_.width; }
    int height() const { return picture_.height; }

    void dot(std::int64_t x, std::int64_t y) {
        if (x < 0 || y < 0 || x >= width() || y >= height()) return;
        std::copy(color_.begin(), color_.end(), at(x, y));
    }

    // Both ends belong to it.
    void row(std::int64_t y, std::int64_t from, std::int64_t to) {
        if (y < 0 || y >= height()) return;
        from = std::max<std::int64_t>(from, 0);
        to = std::min<std::int64_t>(to, width() - 1);
        for (std::int64_t x = from; x <= to; ++x) std::copy(color_.begin(), color_.end(), at(x, y));
    }

private:
    std::uint8_t* at(std::int64_t x, std::int64_t y) {
        return picture_.rgb.data() +
               (static_cast<std::size_t>(y) * static_cast<std::size_t>(picture_.width) +
                static_cast<std::size_t>(x)) *
                   3;
    }

    Frame& picture_;
    const Color& color_;
};

// Bresenham's line between whole pixels, drawn from left to right.
void thin_line(Painter& painter, Pixel a, Pixel b) {
    const auto outside = [&](const Pixel& p) {
        return p.x < 0 || p.y < 0 || p.x >= painter.width() || p.y >= painter.height();
    };
    if ((outside(a) || outside(b)) && !clip(painter.width(), painter.height(), a, b)) return;
    if (b.x < a.x) std::swap(a, b);
    const std::int64_t dx = b.x - a.x;
    const std::int64_t dy = std::abs(b.y - a.y);
    const std::int64_t down = b.y < a.y ? -1 : 1;
    const bool steep = dy > dx;
    const std::int64_t longer = steep ? dy : dx;
    const std::int64_t shorter = steep ? dx : dy;
    std::int64_t error = longer - 2 * shorter;
    for (std::int64_t i = 0; i <= longer; ++i) {
        painter.dot(a.x, a.y);
        const bool aside = error < 0;
        error += (aside ? 2 * longer : 0) - 2 * shorter;
        if (steep || aside) a.y += down;
        if (!steep || aside) ++a.x;
    }
}

// A line between places of kPlaces binary places.
void fine_line(Painter& painter, Pixel a, Pixel b) {
    if (!clip(painter.width() * kOne, painter.height() * kOne, a, b)) return;
    const bool flat = std::abs(b.x - a.x) > std::abs(b.y - a.y);
    if (flat ? b.x < a.x : b.y < a.y) std::swap(a, b);
    const std::int64_t longer = flat ? b.x - a.x : b.y - a.y;
    const std::int64_t across = flat ? b.y - a.y : b.x - a.x;
    const std::int64_t step = across * kOne / (longer | 1);
    painter.dot((b.x + kHalf) >> kPlaces, (b.y + kHalf) >> kPlaces);
    std::int64_t whole = ((flat ? a.x : a.y) + kHalf) >> kPlaces;
    std::int64_t fraction = (flat ? a.y : a.x) + kHalf;
    for (std::int64_t i = longer >> kPlaces; i >= 0; --i, ++whole, fraction += step) {
        const std::int64_t other = fraction >> kPlaces;
        painter.dot(flat ? whole : other, flat ? other : whole);
    }
}

// One of the two sides of a convex polygon on the way down: the edge that the row at hand is in.
struct Side {
    std::size_t corner = 0;
    bool forwards = true;
    std::int64_t until = 0;  // the row at which the edge ends
    std::int64_t x = -kOne;
    std::int64_t step = 0;  // of x per row
};

// corners: in pixels times 2^places.
void fill_convex(Painter& painter, std::span<const Pixel> corners, int places) {
    const int missing = kPlaces - places;
    const std::int64_t round = places > 0 ? std::int64_t{1} << (places - 1) : 0;
    const auto row_of = [&](std::int64_t y) { return (y + round) >> places; };
    for (std::size_t i = 0; i < corners.size(); ++i) {
        const Pixel& a = corners[i == 0 ? corners.size() - 1 : i - 1];
        if (places == 0) {
            thin_line(painter, a, corners[i]);
        } else {
            fine_line(painter, a, corners[i]);
        }
    }
    const auto by_row = [](const Pixel& a, const Pixel& b) { return a.y < b.y; };
    const auto [upper, lower] = std::minmax_element(corners.begin(), corners.end(), by_row);
    const auto topmost = static_cast<std::size_t>(upper - corners.begin());
    const std::int64_t top = row_of(upper->y);
    const std::int64_t bottom = std::min<std::int64_t>(row_of(lower->y), painter.height() - 1);
    if (corners.size() < 3) return;

    const std::size_t count = corners.size();
    std::size_t edges_left = count;
    std::array<Side, 2> sides = {Side{topmost, true, top}, Side{topmost, false, top}};
    for (std::int64_t y = top; y <= bottom; ++y) {
        for (Side& side : sides) {
            if (y < side.until) continue;
            std::size_t from = side.corner;
            while (edges_left > 0) {
                --edges_left;
                const std::size_t to =
                    side.forwards ? (from + 1) % count : (from + count - 1) % count;
                const std::int64_t end = row_of(corners[to].y);
                if (end > y) {
                    const std::int64_t start_x = corners[from].x << missing;
                    const std::int64_t end_x = corners[to].x << missing;
                    const std::int64_t rows = end - y;
                    side = {to, side.forwards, end, start_x,
                            ((end_x - start_x) * 2 + rows) / (2 * rows)};
                    break;
                }
                from = to;
            }
        }
        const auto [left, right] = std::minmax(sides[0].x, sides[1].x);
        painter.row(y, (left + kHalf) >> kPlaces, (right + kHalf) >> kPlaces);
        for (Side& side : sides) side.x += side.step;
    }
}

// The sine of whole degrees, 0 to 450, to the seven places that OpenCV's table has.
float table_sine(int degrees) {
    const double exact = std::sin(degrees * std::numbers::pi / 180);
    return static_cast<float>(std::round(exact * 1e7) / 1e7);
}

}  // namespace

void fill_disc(Frame& picture, Pixel centre, int radius, const Color& color) {
    Painter painter(picture, color);
    // The midpoint circle: dy grows by one, dx shrinks where the circle is crossed.
    std::int64_t error = 0;
    std::int64_t dx = radius;
    std::int64_t shrink = 2 * dx - 1;
    for (std::int64_t dy = 0; dx >= dy; ++dy) {
        painter.row(centre.y - dy, centre.x - dx, centre.x + dx);
        painter.row(centre.y + dy, centre.x - dx, centre.x + dx);
        painter.row(centre.y - dx, centre.x - dy, centre.x + dy);
        painter.row(centre.y + dx, centre.x - dy, centre.x + dy);
        error += 2 * dy + 1;
        if (error > 0) {
            error -= shrink;
            --dx;
            shrink -= 2;
        }
    }
}

void fill_polygon(Frame& picture, std::span<const Pixel> corners, const Color& color) {
    if (corners.empty()) return;
    Painter painter(picture, color);
    fill_convex(painter, corners, 0);
}

void draw_line(Frame& picture, Pixel from, Pixel to, const Color& color, int thickness) {
    Painter painter(picture, color);
    if (thickness <= 1) {
        thin_line(painter, from, to);
        return;
    }
    const auto dx = static_cast<double>(from.x - to.x);
    const auto dy = static_cast<double>(to.y - from.y);
    const double length = dx * dx + dy * dy;
    const std::int64_t half = static_cast<std::int64_t>(thickness) * kHalf;
    const Pixel a{from.x * kOne, from.y * kOne};
    const Pixel b{to.x * kOne, to.y * kOne};
    if (length > 0) {
        const double odd = thickness % 2 != 0 ? static_cast<double>(kHalf) : 0;
        const double reach = (static_cast<double>(half) + odd) / std::sqrt(length);
        const Pixel aside{std::lrint(dy * reach), std::lrint(dx * reach)};
        const std::array<Pixel, 4> corners = {
            Pixel{a.x + aside.x, a.y + aside.y}, Pixel{a.x - aside.x, a.y - aside.y},
            Pixel{b.x - aside.x, b.y - aside.y}, Pixel{b.x + aside.x, b.y + aside.y}};
        fill_convex(painter, corners, kPlaces);
    }
    const auto radius = static_cast<int>((half + kHalf) >> kPlaces);
    fill_disc(picture, from, radius, color);
    fill_disc(picture, to, radius, color);
}

std::vector<Pixel> ellipse_outline(Pixel centre, int half_width, int half_height, int angle) {
    angle = ((angle % 360) + 360) % 360;
    const float cosine = table_sine(450 - angle);
    const float sine = table_sine(angle);
    std::vector<Pixel> outline;
    for (int degrees = 0; degrees <= 360; ++degrees) {
        const double x = static_cast<double>(half_width) * table_sine(450 - degrees);
        const double y = static_cast<double>(half_height) * table_sine(degrees);
        const Pixel pixel{std::lrint(static_cast<double>(centre.x) + x * cosine - y * sine),
                          std::lrint(static_cast<double>(centre.y) + x * sine + y * cosine)};
        if (outline.empty() || outline.back() != pixel) outline.push_back(pixel);
    }
    if (outline.size() == 1) outline.assign(2, centre);
    return outline;
}

}  // namespace zoetrope::preprocess
