#include "preprocess/mask.h"

#include "base/error.h"

#include <algorithm>
#include <cmath>

namespace zoetrope::preprocess {
namespace {

// Each cell becomes 1 where a 1 lies within `before` cells before it or `after` cells behind it.
// `step` leads from one cell to the next.
void grow_line(std::uint8_t* cells, int count, std::size_t step, int before, int after,
               std::vector<int>& sums) {
    sums.assign(static_cast<std::size_t>(count) + 1, 0);
    for (int i = 0; i < count; ++i) {
        const auto k = static_cast<std::size_t>(i);
        sums[k + 1] = sums[k] + cells[k * step];
    }
    if (sums.back() == 0) return;
    for (int i = 0; i < count; ++i) {
        const auto from = static_cast<std::size_t>(std::max(i - before, 0));
        const auto to = static_cast<std::size_t>(std::min(i + after + 1, count));
        cells[static_cast<std::size_t>(i) * step] = sums[to] > sums[from] ? 1 : 0;
    }
}

// Growing n times by a square is growing once by a larger one. An even square reaches one cell
// further before than behind.
void grow(Mask& mask, int kernel, int iterations) {
    const int before = kernel / 2 * iterations;
    const int after = (kernel - 1 - kernel / 2) * iterations;
    std::vector<int> sums;
    const auto width = static_cast<std::size_t>(mask.width);
    for (int y = 0; y < mask.height; ++y) {
        grow_line(mask.inside.data() + static_cast<std::size_t>(y) * width, mask.width, 1, before,
                  after, sums);
    }
    for (int x = 0; x < mask.width; ++x) {
        grow_line(mask.inside.data() + x, mask.height, width, before, after, sums);
    }
}

// The right and lower ends are the last row and column of the mask, and are not filled: so it is in
// the reference.
void fill_blocks(Mask& mask, int columns, int rows) {
    int x0 = mask.width, y0 = mask.height, x1 = -1, y1 = -1;
    const auto at = [&mask](int x, int y) -> std::uint8_t& {
        return mask.inside[static_cast<std::size_t>(y) * static_cast<std::size_t>(mask.width) +
                           static_cast<std::size_t>(x)];
    };
    for (int y = 0; y < mask.height; ++y) {
        for (int x = 0; x < mask.width; ++x) {
            if (at(x, y) == 0) continue;
            x0 = std::min(x0, x);
            x1 = std::max(x1, x);
            y0 = std::min(y0, y);
            y1 = std::max(y1, y);
        }
    }
    const int block_width = std::max((x1 - x0) / columns, 1);
    const int block_height = std::max((y1 - y0) / rows, 1);
    for (int left = x0; left < x1; left += block_width) {
        const int right = std::min(left + block_width, x1);
        for (int top = y0; top < y1; top += block_height) {
            const int bottom = std::min(top + block_height, y1);
            bool any = false;
            for (int y = top; y < bottom && !any; ++y) {
                for (int x = left; x < right && !any; ++x) any = at(x, y) != 0;
            }
            if (!any) continue;
            for (int y = top; y < bottom; ++y)
                std::fill(&at(left, y), &at(left, y) + (right - left), 1);
        }
    }
}

}  // namespace

Mask mask_of(const PersonMask& outline, int width, int height) {
    Mask mask(width, height);
    if (outline.width == 0) return mask;
    const Region& region = outline.region;
    const float c = std::cos(region.angle);
    const float s = std::sin(region.angle);
    const auto alpha = [&](int u, int v) -> float {
        u = std::clamp(u, 0, outline.width - 1);
        v = std::clamp(v, 0, outline.height - 1);
        return outline.alpha[static_cast<std::size_t>(v) * static_cast<std::size_t>(outline.width) +
                             static_cast<std::size_t>(u)];
    };
    std::uint8_t* target = mask.inside.data();
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x, ++target) {
            const float dx = static_cast<float>(x) - region.x;
            const float dy = static_cast<float>(y) - region.y;
            const float u = (dx * c + dy * s) / region.width + 0.5F;
            const float v = (dy * c - dx * s) / region.height + 0.5F;
            if (!(u >= 0 && v >= 0 && u < 1 && v < 1)) continue;
            const float column = u * static_cast<float>(outline.width) - 0.5F;
            const float row = v * static_cast<float>(outline.height) - 0.5F;
            const int left = static_cast<int>(std::floor(column));
            const int top = static_cast<int>(std::floor(row));
            const float right_share = column - static_cast<float>(left);
            const float lower_share = row - static_cast<float>(top);
            const float upper =
                alpha(left, top) * (1 - right_share) + alpha(left + 1, top) * right_share;
            const float lower =
                alpha(left, top + 1) * (1 - right_share) + alpha(left + 1, top + 1) * right_share;
            *target = upper * (1 - lower_share) + lower * lower_share >= 127.5F ? 1 : 0;
        }
    }
    return mask;
}

Mask augmented(const Mask& mask, const MaskOptions& options) {
    ZT_CHECK(
        options.kernel >= 1 && options.iterations >= 0 && options.columns >= 1 && options.rows >= 1,
        bad_request,
        "a mask grown {} times by {} pixels, in {} by {} blocks: accepted are 0 and more times, "
        "1 and more of the others",
        options.iterations, options.kernel, options.columns, options.rows);
    Mask out = mask;
    if (options.iterations == 0) return out;
    grow(out, options.kernel, options.iterations);
    fill_blocks(out, options.columns, options.rows);
    return out;
}

Frame blanked(const Frame& frame, const Mask& mask) {
    ZT_CHECK(frame.width == mask.width && frame.height == mask.height, internal,
             "a mask of {}x{} for a frame of {}x{}", mask.width, mask.height, frame.width,
             frame.height);
    Frame out = frame;
    for (std::size_t i = 0; i < mask.inside.size(); ++i) {
        if (mask.inside[i] != 0)
            std::fill_n(out.rgb.begin() + static_cast<std::ptrdiff_t>(i * 3), 3, 0);
    }
    return out;
}

Frame frame_of(const Mask& mask) {
    Frame out(mask.width, mask.height);
    for (std::size_t i = 0; i < mask.inside.size(); ++i) {
        const std::uint8_t value = mask.inside[i] != 0 ? 255 : 0;
        std::fill_n(out.rgb.begin() + static_cast<std::ptrdiff_t>(i * 3), 3, value);
    }
    return out;
}

}  // namespace zoetrope::preprocess
