#include "kernels/attention_avx512.h"

#include "kernels/attention.h"
#include "kernels/attention_tile.h"

#include <cstddef>
#include <cstdint>

namespace zoetrope::kernels {
namespace {

// Register tiles of int32 sums of four products of u8 by s8 a lane: K by Q, and P by V.
struct Tile {
    using Vector = __m512i;
    static constexpr int kWords = 16, kVectors = 3, kRows = 8;  // 24 of the 32 registers hold sums

    static Vector zero() { return _mm512_setzero_si512(); }
    static Vector load(const float* at) { return _mm512_loadu_si512(at); }
    static Vector broadcast(const float* word) { return (__m512i)_mm512_set1_ps(*word); }
};
// Each lane of `sum` plus four products. By hand: GCC 12 makes a copy of the sum for each use of
// its intrinsic (0.4 of the peak).
__m512i add_products(__m512i unsigned_bytes, __m512i signed_bytes, __m512i sum) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
    return sum;
}

struct KeyTile : Tile {
    static Vector dot(Vector keys, Vector queries, Vector sum) {
        return add_products(keys, queries, sum);
    }
};
struct ValueTile : Tile {
    static Vector dot(Vector values, Vector p, Vector sum) { return add_products(p, values, sum); }
};

constexpr AttentionLayout kLayout = kAttentionAvx512Vnni;
constexpr int kPanel = kAttentionPanel;
constexpr int kPerWord = kLayout.per_word();
constexpr int kLanes = 16, kGroup = Tile::kVectors * kLanes;
static_assert(kLayout.queries % kGroup == 0);

constexpr float kLargestP = 255, kLog2LargestP = 7.994353436858858F;

struct Block {
    const AttentionCall& call;
    float* q;  // [group][head_size / kPerWord][kGroup] words of s8
    float* o;  // [group][head_size][kGroup]
    float* s;  // [key_block][kGroup] K Q^T of K plus 128, then words of P in their place
    // Of each query:
    float* scale;    // of the logits times log2(e), for a key scale of 1
    float* offset;   // 128 times the sum of Q: what s has too much
    float* maximum;  // of the logits times log2(e)
    float* sum;      // of P times 255
    // Of one group: what O is to be multiplied by, and what the sums of a block.
    float* decay;
    float* weight;

    explicit Block(const AttentionCall& given) : call(given) {
        constexpr std::ptrdiff_t queries = kLayout.queries;
        o = call.scratch;
        s = o + queries * call.head_size;
        q = s + std::ptrdiff_t{kGroup} * kLayout.key_block;
        scale = q + queries * call.head_size / kPerWord;
        offset = scale + queries;
        maximum = offset + queries;
        sum = maximum + queries;
        decay = sum + queries;
        weight = decay + kGroup;
    }

    void run() const {
        for (int row = 0; row < call.queries; row += kLanes) pack_queries(row);
        for (std::int64_t first = 0; first < call.kv_length; first += kLayout.key_block) {
            const std::int64_t left = call.kv_length - first;
            const int keys = static_cast<int>(left < kLayout.key_block ? left : kLayout.key_block);
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

    // 16 rows of Q, each with its own scale, into lanes; lanes behind the last query become zero.
    void pack_queries(int row) const {
        const int words = call.head_size / kPerWord;
        alignas(64) std::int8_t bytes[kLanes][128] = {};
        alignas(64) float scales[kLanes] = {};
        for (int i = 0; i < kLanes && row + i < call.queries; ++i) {
            __m512 largest = _mm512_set1_ps(1e-30F);
            for (int d = 0; d < call.head_size; d += 16)
                largest = _mm512_max_ps(_mm512_abs_ps(load_query(call, row + i, d)), largest);
            const float unit = _mm512_reduce_max_ps(largest) / 127;
            for (int d = 0; d < call.head_size; d += 16) {
                const __m512 x = _mm512_div_ps(load_query(call, row + i, d), _mm512_set1_ps(unit));
                _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes[i] + d),
                                 _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
            }
            scales[i] = unit * call.scale;
        }
        float* packed =
            q + static_cast<std::ptrdiff_t>(row / kGroup) * words * kGroup + row % kGroup;
        __m512i sums = _mm512_setzero_si512();
        for (int word = 0; word < words; word += kLanes) {
            const int count = words - word < kLanes ? words - word : kLanes;
            __m512 tile[kLanes];
            for (int i = 0; i < kLanes; ++i) tile[i] = Avx512::load_words(bytes[i], word, count);
            Avx512::transpose(tile);
            for (int i = 0; i < count; ++i) {
                _mm512_storeu_ps(packed + (word + i) * kGroup, tile[i]);
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(-128), (__m512i)tile[i]);
            }
        }
        _mm512_storeu_ps(scale + row, _mm512_load_ps(scales));
        _mm512_storeu_ps(offset + row, _mm512_cvtepi32_ps(sums));
    }

    // One block of keys for one group of queries.
    template <int vectors>
    void add_keys(std::int64_t first, int keys, int query) const {
        const int words = call.head_size / kPerWord, depth = (keys + kPerWord - 1) / kPerWord;
        const auto* k = static_cast<const float*>(call.keys) + first * words;
        const auto* v = static_cast<const float*>(call.values) + first * words;
        const float* columns = q + static_cast<std::ptrdiff_t>(query) * words;
        float* result = o + static_cast<std::ptrdiff_t>(query) * call.head_size;
        for (int key = 0; key < keys; key += kPanel)
            multiply_keys<vectors>(k + key * words, columns, words, s + key * kGroup);
        for (int j = 0; j < vectors; ++j) softmax(keys, first, query, j * kLanes);
        for (int d = 0; d < call.head_size; d += kPanel)
            add_values<vectors>(v + d * depth, depth, result + d * kGroup, first == 0);
    }

    // The tiles are not inlined, lest the compiler keep more in registers than there is room for.
    template <int vectors>
    [[gnu::noinline]] static void multiply_keys(const float* panel, const float* columns, int depth,
                                                float* c) {
        multiply_tile<KeyTile, vectors>(panel, columns, depth, [&](int i, int j, __m512i x) {
            _mm512_storeu_ps(c + i * kGroup + j * kLanes, _mm512_cvtepi32_ps(x));
        });
    }

    // to = (first ? 0 : to decay) + V^T P weight
    template <int vectors>
    [[gnu::noinline]] void add_values(const float* panel, int depth, float* to, bool first) const {
        multiply_tile<ValueTile, vectors>(panel, s, depth, [&](int i, int j, __m512i x) {
            float* at = to + i * kGroup + j * kLanes;
            const __m512 added =
                _mm512_mul_ps(_mm512_cvtepi32_ps(x), _mm512_loadu_ps(weight + j * kLanes));
            _mm512_storeu_ps(at, first
                                     ? added
                                     : _mm512_fmadd_ps(_mm512_loadu_ps(at),
                                                       _mm512_loadu_ps(decay + j * kLanes), added));
        });
    }

    // 16 queries of a group, from `lane` on: s becomes words of P, with 255 for the largest logit
    // of the block; maximum and sum take these keys in.
    void softmax(int keys, std::int64_t first, int query, int lane) const {
        float* const column = s + lane;
        __m512 top = largest(column, keys);
        const __m512 surplus = _mm512_loadu_ps(offset + query + lane);
        const __m512 factor =
            _mm512_mul_ps(_mm512_loadu_ps(scale + query + lane),
                          _mm512_set1_ps(call.key_scales[first / kLayout.key_block]));
        top = _mm512_mul_ps(_mm512_sub_ps(top, surplus), factor);
        // log2 P is a logit in s times factor, less shift.
        const __m512 shift =
            _mm512_sub_ps(_mm512_fmadd_ps(surplus, factor, top), _mm512_set1_ps(kLog2LargestP));
        const __m512i total = exponentials(column, keys, factor, shift);

        float *const tops = maximum + query + lane, *const sums = sum + query + lane;
        const __m512 before = first == 0 ? top : _mm512_loadu_ps(tops);
        const __m512 raised = _mm512_max_ps(top, before);
        const __m512 fall = power(_mm512_sub_ps(before, raised));
        const __m512 share = power(_mm512_sub_ps(top, raised));
        const __m512 added = _mm512_mul_ps(_mm512_cvtepi32_ps(total), share);
        const __m512 sum_before = first == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(sums);
        _mm512_storeu_ps(sums, _mm512_fmadd_ps(sum_before, fall, added));
        _mm512_storeu_ps(tops, raised);
        _mm512_storeu_ps(decay + lane, fall);
        _mm512_storeu_ps(weight + lane, share);
    }

    // Of a column of s, in four chains: one would wait for each comparison.
    static __m512 largest(const float* column, int keys) {
        __m512 top[4];
#pragma GCC unroll 4
        for (__m512& x : top) x = _mm512_loadu_ps(column);
        int key = 0;
        for (; key + 4 <= keys; key += 4) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i)
                top[i] = _mm512_max_ps(_mm512_loadu_ps(column + (key + i) * kGroup), top[i]);
        }
        for (; key < keys; ++key)
            top[0] = _mm512_max_ps(_mm512_loadu_ps(column + key * kGroup), top[0]);
        return _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
    }

    // Logits in a column of s become words of P; gives their sum.
    static __m512i exponentials(float* column, int keys, __m512 factor, __m512 shift) {
        __m512i total = _mm512_setzero_si512();
        for (int key = 0; key < keys; key += kPerWord) {
            __m512i p[kPerWord];
#pragma GCC unroll 4
            for (int i = 0; i < kPerWord; ++i) {
                const __m512 x = _mm512_loadu_ps(column + (key + i) * kGroup);
                p[i] = exp2(_mm512_fmsub_ps(x, factor, shift));
            }
            __m512i word = join(p);
            if (keys - key < kPerWord)
                word = _mm512_and_si512(word, _mm512_set1_epi32((1 << 8 * (keys - key)) - 1));
            total = add_products(word, _mm512_set1_epi8(1), total);
            _mm512_storeu_si512(column + key / kPerWord * kGroup, word);
        }
        return total;
    }

    static __m512 power(__m512 x) {
        constexpr float kCoefficients[] = {0.6930448412895203F, 0.2412802129983902F,
                                           0.0522424578666687F, 0.013426692225039005F};
        return Avx512::exp2(x, kCoefficients);
    }

    // Relative error 9e-5, to the nearest whole number.
    static __m512i exp2(__m512 x) {
        constexpr float kCoefficients[] = {0.6951167583465576F, 0.22764499485492706F,
                                           0.07706703990697861F};
        return _mm512_cvtps_epi32(Avx512::exp2(x, kCoefficients));
    }

    // p[0] + 2^8 p[1] + 2^16 p[2] + 2^24 p[3]: products of 16-bit pairs are sooner done than
    // shifts.
    static __m512i join(const __m512i (&p)[kPerWord]) {
        const __m512i byte = _mm512_set1_epi32(256);
        const __m512i low = _mm512_dpwssd_epi32(p[0], p[1], byte);
        const __m512i high = _mm512_dpwssd_epi32(p[2], p[3], byte);
        return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }

    void write_rows() const {
        for (int row = 0; row < call.queries; row += kLanes) {
            const std::ptrdiff_t group = row / kGroup;
            const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1), _mm512_loadu_ps(sum + row));
            write_scaled_rows(call, row, o + group * call.head_size * kGroup + row % kGroup, kGroup,
                              inverse);
        }
        for (int row = 0; call.row_maximum != nullptr && row < call.queries; ++row) {
            call.row_maximum[row] = maximum[row];
            call.row_sum[row] = sum[row] / kLargestP;
        }
    }
};

}  // namespace

void attention_avx512vnni(const AttentionCall& call) { Block(call).run(); }

}  // namespace zoetrope::kernels
