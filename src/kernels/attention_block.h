// The algorithm of the vector attention kernels, written once over a register file M.
//
// Queries sit in lanes, kGroup of them in a register tile's width: S^T = K Q^T and O^T = V^T P are
// then the same product of a packed panel with rows of queries, and the softmax over keys runs down
// the lanes with no step across them. Everything has internal linkage: each instruction-set file
// that includes this has its own copy.
//
// M offers what attention_tile.h asks for, a word being a lane, and kLanes, kLayout; store, set,
// add, sub, mul, div, max, exp2(x) for x <= 0, multiply_subtract(a, b, c) = ab - c, multiply_add(a,
// b, c) = ab + c; pair(p0, p1) and add_pair(sum, pair) where a word is two elements;
// row(q, elements) behind q, load_words(row, word, count), transpose(rows) of kLanes by kLanes
// words, and store_row(out, elements, x), which writes kLanes elements that far behind out.
#pragma once

#include "kernels/attention.h"
#include "kernels/attention_tile.h"

#include <cstddef>
#include <cstdint>

namespace zoetrope::kernels {
namespace {

template <class M>
struct AttentionBlock {
    using Vector = typename M::Vector;
    static constexpr int kLanes = M::kLanes;
    static constexpr int kGroup = M::kVectors * kLanes;
    static constexpr int kPanel = kAttentionPanel;
    static constexpr int kPair = M::kLayout.per_word();
    static constexpr float kLowest = -3.4028234663852886e38F;  // finite: -inf less it is -inf

    const AttentionCall& call;
    float* q;        // [group][head_size / kPair][kGroup] words
    float* o;        // [group][head_size][kGroup]
    float* s;        // [key_block][kGroup] logits, then words of P in their place
    float* maximum;  // [group][kGroup], of the scaled logits
    float* sum;      // [group][kGroup]

    explicit AttentionBlock(const AttentionCall& given) : call(given) {
        constexpr std::ptrdiff_t queries = M::kLayout.queries;
        q = call.scratch;
        o = q + queries * call.head_size;
        s = o + queries * call.head_size;
        maximum = s + queries * M::kLayout.key_block;
        sum = maximum + queries;
    }

    void run() {
        pack_queries();
        constexpr std::int64_t block = M::kLayout.key_block;
        for (std::int64_t first = 0; first < call.kv_length; first += block) {
            const std::int64_t left = call.kv_length - first;
            const int keys = static_cast<int>(left < block ? left : block);
            for (int query = 0; query < call.queries; query += kGroup) {
                const int vectors = (call.queries - query + kLanes - 1) / kLanes;
                if (vectors >= 3) {
                    add_keys<3>(first, keys, query);
                } else if (vectors == 2) {
                    add_keys<2>(first, keys, query);
                } else {
                    add_keys<1>(first, keys, query);
                }
            }
        }
        write_rows();
    }

    // Rows of Q into lanes; lanes behind the last query become zero.
    void pack_queries() const {
        const int words = call.head_size / kPair;
        for (int row = 0; row < call.queries; row += kLanes) {
            float* packed =
                q + static_cast<std::ptrdiff_t>(row / kGroup) * words * kGroup + row % kGroup;
            for (int word = 0; word < words; word += kLanes) {
                const int count = words - word < kLanes ? words - word : kLanes;
                Vector tile[kLanes];
                for (int i = 0; i < kLanes; ++i) {
                    tile[i] =
                        row + i < call.queries
                            ? M::load_words(M::row(call.q, (row + i) * call.q_stride), word, count)
                            : M::set(0.0F);
                }
                M::transpose(tile);
                for (int i = 0; i < count; ++i) M::store(packed + (word + i) * kGroup, tile[i]);
            }
        }
    }

    // One block of keys for one group of queries.
    template <int vectors>
    void add_keys(std::int64_t first, int keys, int query) const {
        const int words = call.head_size / kPair, depth = (keys + kPair - 1) / kPair;
        const auto* k = static_cast<const float*>(call.keys) + first * words;
        const auto* v = static_cast<const float*>(call.values) + first * words;
        const float* columns = q + static_cast<std::ptrdiff_t>(query) * words;
        float* result = o + static_cast<std::ptrdiff_t>(query) * call.head_size;
        for (int key = 0; key < keys; key += kPanel) {
            multiply<vectors>(k + static_cast<std::ptrdiff_t>(key) * words, columns, words,
                              s + key * kGroup, nullptr);
        }
        Vector decay[vectors];
        softmax<vectors>(keys, first == 0, query, decay);
        for (int d = 0; d < call.head_size; d += kPanel) {
            multiply<vectors>(v + static_cast<std::ptrdiff_t>(d) * depth, s, depth,
                              result + d * kGroup, first == 0 ? nullptr : decay);
        }
    }

    // c [kPanel][kGroup] = (decay ? c * decay : 0) + panel [depth][kPanel] ^T columns
    // [depth][kGroup]
    template <int vectors>
    static void multiply(const float* panel, const float* columns, int depth, float* c,
                         const Vector* decay) {
        for (int row = 0; row < kPanel; row += M::kRows) {
            multiply_tile<M, vectors>(panel + row, columns, depth, [&](int i, int j, Vector sum) {
                float* at = c + (row + i) * kGroup + j * kLanes;
                M::store(at, decay == nullptr ? sum : M::multiply_add(M::load(at), decay[j], sum));
            });
        }
    }

    // Logits in s become words of P; maximum and sum take these keys in; decay is what earlier sums
    // are to be multiplied by. A NaN logit is passed over in the maximum and comes back through its
    // own exponential.
    template <int vectors>
    void softmax(int keys, bool first, int query, Vector (&decay)[vectors]) const {
        const Vector scale = M::set(call.scale);
        Vector top[vectors], total[vectors];
#pragma GCC unroll 3
        for (Vector& x : top) x = M::set(-__builtin_inff());
        for (int key = 0; key < keys; ++key) {
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j)
                top[j] = M::max(M::load(s + key * kGroup + j * kLanes), top[j]);
        }
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) {
            float* at = maximum + query + j * kLanes;
            const Vector before = first ? M::set(kLowest) : M::load(at);
            top[j] = M::max(M::mul(top[j], scale), before);
            decay[j] = M::exp2(M::sub(before, top[j]));
            total[j] = M::set(0.0F);
            M::store(at, top[j]);
        }
        const auto exponential = [&](int key, int j) {
            return M::exp2(
                M::multiply_subtract(M::load(s + key * kGroup + j * kLanes), scale, top[j]));
        };
        int key = 0;
        for (; key + kPair <= keys; key += kPair) {
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j) {
                float* at = s + key / kPair * kGroup + j * kLanes;
                if constexpr (kPair == 1) {
                    const Vector p = exponential(key, j);
                    total[j] = M::add(total[j], p);
                    M::store(at, p);
                } else {
                    const Vector p = M::pair(exponential(key, j), exponential(key + 1, j));
                    total[j] = M::add_pair(total[j], p);
                    M::store(at, p);
                }
            }
        }
        if constexpr (kPair == 2) {
            for (int j = 0; key < keys && j < vectors; ++j) {
                const Vector p = M::pair(exponential(key, j), M::set(0.0F));
                total[j] = M::add_pair(total[j], p);
                M::store(s + key / kPair * kGroup + j * kLanes, p);
            }
        }
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) {
            float* at = sum + query + j * kLanes;
            M::store(at, first ? total[j] : M::multiply_add(M::load(at), decay[j], total[j]));
        }
    }

    // O over the sums, back into rows.
    void write_rows() const {
        for (int row = 0; row < call.queries; row += kLanes) {
            const int count = call.queries - row < kLanes ? call.queries - row : kLanes;
            const float* lanes =
                o + static_cast<std::ptrdiff_t>(row / kGroup) * call.head_size * kGroup +
                row % kGroup;
            const Vector inverse = M::div(M::set(1.0F), M::load(sum + row));
            for (int d = 0; d < call.head_size; d += kLanes) {
                Vector tile[kLanes];
                for (int i = 0; i < kLanes; ++i)
                    tile[i] = M::mul(M::load(lanes + (d + i) * kGroup), inverse);
                M::transpose(tile);
                for (int i = 0; i < count; ++i)
                    M::store_row(call.out, (row + i) * call.out_stride + d, tile[i]);
            }
        }
        for (int row = 0; call.row_maximum != nullptr && row < call.queries; ++row) {
            call.row_maximum[row] = maximum[row];
            call.row_sum[row] = sum[row];
        }
    }
};

}  // namespace
}  // namespace zoetrope::kernels
