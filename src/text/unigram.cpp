#include "text/unigram.h"

#include <unicode/utf8.h>

#include <algorithm>

namespace zoetrope {
namespace {

// What an unknown code point costs more than the worst piece (SentencePiece's kUnkPenalty).
constexpr double kUnknownPenalty = 10.0;

unsigned char byte_at(std::string_view text, std::size_t index) {
    return static_cast<unsigned char>(text[index]);
}

}  // namespace

Unigram::Unigram(std::vector<std::string> pieces, std::vector<double> scores, std::int32_t unk_id)
    : pieces_(std::move(pieces)), scores_(std::move(scores)), unk_id_(unk_id) {
    unk_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
    sorted_.reserve(pieces_.size());
    for (std::size_t id = 0; id < pieces_.size(); ++id) {
        if (!pieces_[id].empty()) sorted_.push_back({pieces_[id], static_cast<std::int32_t>(id)});
    }
    // The last of equals first, so that unique() keeps it.
    std::sort(sorted_.begin(), sorted_.end(), [](const Entry& a, const Entry& b) {
        const int order = a.piece.compare(b.piece);
        return order != 0 ? order < 0 : a.id > b.id;
    });
    const auto same = [](const Entry& a, const Entry& b) { return a.piece == b.piece; };
    sorted_.erase(std::unique(sorted_.begin(), sorted_.end(), same), sorted_.end());
}

std::int32_t Unigram::id_of(std::string_view piece) const {
    const auto found = std::lower_bound(
        sorted_.begin(), sorted_.end(), piece,
        [](const Entry& entry, std::string_view key) { return entry.piece < key; });
    return found != sorted_.end() && found->piece == piece ? found->id : -1;
}

void Unigram::segment(std::string_view word, std::vector<std::int32_t>& ids) const {
    struct Best {  // of all ways to cut the text before a position
        double score = 0;
        std::int64_t begin = -1;  // of the last piece; -1: not reached yet
        std::int32_t id = -1;
    };
    std::vector<Best> best(word.size() + 1);
    const auto offer = [&](std::size_t begin, std::size_t end, std::int32_t id, double score) {
        const double sum = best[begin].score + score;
        if (best[end].begin < 0 || sum > best[end].score) {
            best[end] = {sum, static_cast<std::int64_t>(begin), id};
        }
    };
    const auto size = static_cast<std::int32_t>(word.size());
    for (std::int32_t at = 0, next = 0; at < size; at = next) {
        U8_FWD_1(word.data(), next, size);
        const auto begin = static_cast<std::size_t>(at);
        bool single = false;  // whether this code point is a piece of its own
        auto low = sorted_.begin();
        auto high = sorted_.end();
        for (std::size_t end = begin; end < word.size(); ++end) {
            // All entries of [low, high) begin with word[begin, end); one may be just that.
            const std::size_t depth = end - begin;
            if (low->piece.size() == depth) ++low;
            const unsigned char byte = byte_at(word, end);
            low = std::partition_point(
                low, high, [&](const Entry& e) { return byte_at(e.piece, depth) < byte; });
            high = std::partition_point(
                low, high, [&](const Entry& e) { return byte_at(e.piece, depth) == byte; });
            if (low == high) break;
            if (low->piece.size() != depth + 1) continue;
            offer(begin, end + 1, low->id, scores_[static_cast<std::size_t>(low->id)]);
            single = single || end + 1 == static_cast<std::size_t>(next);
        }
        if (!single) offer(begin, static_cast<std::size_t>(next), unk_id_, unk_score_);
    }
    const std::size_t first = ids.size();
    for (std::size_t end = word.size(); end > 0;) {
        const Best& last = best[end];
        const bool in_run = last.id == unk_id_ && ids.size() > first && ids.back() == unk_id_;
        if (!in_run) ids.push_back(last.id);
        end = static_cast<std::size_t>(last.begin);
    }
    std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
}

}  // namespace zoetrope
