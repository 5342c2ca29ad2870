// The unigram model of SentencePiece: cuts a word into the pieces whose log probabilities have the
// greatest sum (Kudo, arXiv:1804.10959).
//
// Sums are kept in double and ties go to the piece that begins first, as in Hugging Face
// tokenizers: libsentencepiece sums in float over the whole text and cuts runs such as "....."
// otherwise. Immutable; any thread may segment.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

class Unigram {
public:
    // pieces and scores by id. Of several pieces with one spelling the last counts.
    // There is at least one; unk_id is one of them.
    Unigram(std::vector<std::string> pieces, std::vector<double> scores, std::int32_t unk_id);
    Unigram(const Unigram&) = delete;
    Unigram& operator=(const Unigram&) = delete;

    // Appends the ids of a word; a run of unknown code points becomes one unknown token.
    void segment(std::string_view word, std::vector<std::int32_t>& ids) const;

    // -1 where there is no such piece.
    std::int32_t id_of(std::string_view piece) const;
    const std::vector<std::string>& pieces() const { return pieces_; }

private:
    struct Entry {
        std::string_view piece;
        std::int32_t id;
    };

    std::vector<std::string> pieces_;
    std::vector<double> scores_;
    std::vector<Entry> sorted_;  // by bytes; views into pieces_
    std::int32_t unk_id_;
    double unk_score_;
};

}  // namespace zoetrope
