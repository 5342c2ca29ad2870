#include "kernels/attention_avx512.h"

#include "kernels/attention.h"
#include "kernels/attention_tile.h"

#include <cstddef>
#include <cstdint>

namespace zoetrope::kernels {
namespace {

// A register tile of fp16. A number of K or V is twice in its word because a broadcast of 32 bits
// from memory, unlike one of 16, takes nothing from the units that multiply.
struct Tile {
    using Vector = __m512h;
    static constexpr int kWords = 16, kVectors = 3, kRows = 8;  // 24 of the 32 registers hold sums

    static Vector zero() { return _mm512_setzero_ph(); }
    static Vector set(float x) { return _mm512_set1_ph(static_cast<_Float16>(x)); }
    static Vector load(const float* at) { return (Vector)_mm512_loadu_ps(at); }
    static void store(float* at, Vector x) { _mm512_storeu_ps(at, (__m512)x); }
    static Vector broadcast(const float* word) { return (Vector)_mm512_set1_ps(*word); }
    static Vector dot(Vector word, Vector column, Vector sum) {
        return _mm512_fmadd_ph(word, column, sum);
    }
};

// 32 numbers in float32: the first 16 and the others.
struct Wide {
    __m512 low, high;
};

Wide load_wide(const float* at) { return {_mm512_loadu_ps(at), _mm512_loadu_ps(at + 16)}; }

void store_wide(float* at, const Wide& x) {
    _mm512_storeu_ps(at, x.low);
    _mm512_storeu_ps(at + 16, x.high);
}

Wide widen(const float* at) {
    const auto* half = reinterpret_cast<const __m256i_u*>(at);
    return {_mm512_cvtxph_ps((__m256h)half[0]), _mm512_cvtxph_ps((__m256h)half[1])};
}

// a b + c
Wide multiply_add(const Wide& a, const Wide& b, const Wide& c) {
    return {_mm512_fmadd_ps(a.low, b.low, c.low), _mm512_fmadd_ps(a.high, b.high, c.high)};
}

constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
constexpr int kUp = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;

constexpr AttentionLayout kLayout = kAttentionAvx512Fp16;
constexpr int kPanel = kAttentionPanel;
constexpr int kLanes = 32, kGroup = Tile::kVectors * kLanes, kWords = kGroup / 2;
static_assert(kLayout.queries == kGroup);

// So many products are added up one after the other, then the sums of these. Longer chains round
// more: relative L2 error (8,192 random normal keys, head size 128) and part of peak are 1.6e-3 and
// 0.83 for 16, 1.9e-3 and 0.87 for 32, 2.9e-3 and 0.89 for 64, 4.6e-3 and 0.90 for 128; rounding P
// to bf16 costs 1.6e-3.
constexpr int kChain = 32;

// P is 2^7 at most, so that small ones keep their bits and a block of them, times values of at most
// 1, adds up to 2^15.
constexpr float kRaise = 7;

// The block of queries is one group: 96 in lanes. S and P stay in fp16; the sum of P and O are
// float32 from one block of keys to the next.
struct Block {
    const AttentionCall& call;
    float* q;        // [head_size][kWords] fp16
    float* o;        // [head_size][kGroup] float32
    float* s;        // [key_block][kWords] fp16: logits times log2(e), then P
    float* part;     // [kPanel][kWords] fp16
    float* maximum;  // [kWords] fp16, whole numbers: P is 2^(logit - maximum)
    float* sum;      // [kGroup] float32

    explicit Block(const AttentionCall& given) : call(given) {
        q = call.scratch;
        o = q + std::ptrdiff_t{kWords} * call.head_size;
        s = o + std::ptrdiff_t{kGroup} * call.head_size;
        part = s + std::ptrdiff_t{kWords} * kLayout.key_block;
        maximum = part + kPanel * kWords;
        sum = maximum + kWords;
    }

    void run() const {
        pack_queries();
        const int vectors = (call.queries + kLanes - 1) / kLanes;
        for (std::int64_t first = 0; first < call.kv_length; first += kLayout.key_block) {
            const std::int64_t left = call.kv_length - first;
            const int keys = static_cast<int>(left < kLayout.key_block ? left : kLayout.key_block);
            if (vectors == 3) {
                add_keys<3>(first, keys);
            } else if (vectors == 2) {
                add_keys<2>(first, keys);
            } else {
                add_keys<1>(first, keys);
            }
        }
        write_rows();
    }

    // Rows of Q, scaled so that logits come out times log2(e), into lanes; lanes behind the last
    // query become zero.
    void pack_queries() const {
        const __m512 scale = _mm512_set1_ps(call.scale * call.key_scales[0]);
        auto* packed = reinterpret_cast<_Float16*>(q);
        for (int row = 0; row < kGroup; row += 16) {
            for (int d = 0; d < call.head_size; d += 16) {
                __m512 tile[16];
                for (int i = 0; i < 16; ++i) {
                    tile[i] = row + i < call.queries
                                  ? _mm512_mul_ps(load_query(call, row + i, d), scale)
                                  : _mm512_setzero_ps();
                }
                Avx512::transpose(tile);
                for (int i = 0; i < 16; ++i)
                    _mm256_storeu_ph(packed + (d + i) * kGroup + row, _mm512_cvtxps_ph(tile[i]));
            }
        }
    }

    // One block of keys.
    template <int vectors>
    void add_keys(std::int64_t first, int keys) const {
        const auto* k = static_cast<const float*>(call.keys) + first * call.head_size;
        const auto* v = static_cast<const float*>(call.values) + first * call.head_size;
        for (int key = 0; key < keys; key += kPanel)
            multiply<vectors>(k + key * call.head_size, q, call.head_size, s + key * kWords);
        Wide decay[vectors];  // unset and unused in the first block
        softmax<vectors>(keys, first == 0, decay);
        for (int d = 0; d < call.head_size; d += kPanel) {
            multiply<vectors>(v + d * keys, s, keys, part);
            add_part<vectors>(o + d * kGroup, first == 0, decay);
        }
    }

    // c [kPanel][kWords] = panel [depth][kPanel] ^T columns [depth][kWords]
    template <int vectors>
    static void multiply(const float* panel, const float* columns, int depth, float* c) {
        for (int step = 0; step < depth; step += kChain) {
            const int left = depth - step;
            add_chain<vectors>(panel + step * kPanel, columns + step * kWords,
                               left < kChain ? left : kChain, c, step == 0);
        }
    }

    // Not inlined, lest the compiler keep c in registers, which are all in use.
    template <int vectors>
    [[gnu::noinline]] static void add_chain(const float* panel, const float* columns, int depth,
                                            float* c, bool first) {
        multiply_tile<Tile, vectors>(panel, columns, depth, [&](int i, int j, __m512h sum) {
            float* at = c + i * kWords + j * 16;
            Tile::store(at, first ? sum : _mm512_add_ph(Tile::load(at), sum));
        });
    }

    // to = to decay + part
    template <int vectors>
    void add_part(float* to, bool first, const Wide (&decay)[vectors]) const {
        for (int i = 0; i < kPanel; ++i) {
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j) {
                float* at = to + i * kGroup + j * kLanes;
                const Wide x = widen(part + i * kWords + j * 16);
                store_wide(at, first ? x : multiply_add(load_wide(at), decay[j], x));
            }
        }
    }

    // Logits in s become P; maximum and sum take these keys in; decay is what earlier sums are to
    // be multiplied by.
    template <int vectors>
    void softmax(int keys, bool first, Wide (&decay)[vectors]) const {
        __m512h top[vectors];
        raise_maximum<vectors>(keys, first, top, decay);
        Wide total[vectors];
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) {
            const Wide zero{_mm512_setzero_ps(), _mm512_setzero_ps()};
            total[j] = first ? zero : multiply_add(load_wide(sum + j * kLanes), decay[j], zero);
        }
        for (int key = 0; key < keys; key += kChain) {
            const int end = key + kChain < keys ? key + kChain : keys;
            __m512h chain[vectors];
#pragma GCC unroll 3
            for (__m512h& x : chain) x = Tile::zero();
            for (int i = key; i < end; ++i) {
#pragma GCC unroll 3
                for (int j = 0; j < vectors; ++j) {
                    float* at = s + i * kWords + j * 16;
                    const __m512h p = exp2(Tile::load(at), top[j]);
                    chain[j] = _mm512_add_ph(chain[j], p);
                    Tile::store(at, p);
                }
            }
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j) {
                Tile::store(part, chain[j]);
                const Wide x = widen(part);
                total[j].low = _mm512_add_ps(total[j].low, x.low);
                total[j].high = _mm512_add_ps(total[j].high, x.high);
            }
        }
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) store_wide(sum + j * kLanes, total[j]);
    }

    // A whole number, so that earlier sums lose nothing where it rises.
    template <int vectors>
    void raise_maximum(int keys, bool first, __m512h (&top)[vectors],
                       Wide (&decay)[vectors]) const {
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) top[j] = Tile::load(s + j * 16);
        for (int key = 1; key < keys; ++key) {
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j)
                top[j] = _mm512_max_ph(Tile::load(s + key * kWords + j * 16), top[j]);
        }
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) {
            float* at = maximum + j * 16;
            top[j] = _mm512_sub_round_ph(_mm512_roundscale_ph(top[j], kUp), Tile::set(kRaise), kUp);
            if (!first) {
                const __m512h before = Tile::load(at);
                top[j] = _mm512_max_ph(top[j], before);
                Tile::store(part, _mm512_scalef_ph(Tile::set(1), _mm512_sub_ph(before, top[j])));
                decay[j] = widen(part);
            }
            Tile::store(at, top[j]);
        }
    }

    // 2^(x - whole): the fraction of x is exact, and so is the whole part of the difference rounded
    // down. 2^f = 1 + f c0 + f^2 c1 + f^3 c2 with an error of 6e-4 at most, half a unit being 5e-4.
    static __m512h exp2(__m512h x, __m512h whole) {
        const __m512h f = _mm512_reduce_ph(x, kDown);
        __m512h p = _mm512_fmadd_ph(Tile::set(0.07861328F), f, Tile::set(0.2253418F));
        p = _mm512_fmadd_ph(p, f, Tile::set(0.6958008F));
        p = _mm512_fmadd_ph(p, f, Tile::set(1));
        return _mm512_scalef_ph(p, _mm512_sub_round_ph(x, whole, kDown));
    }

    void write_rows() const {
        for (int row = 0; row < call.queries; row += 16) {
            const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1), _mm512_loadu_ps(sum + row));
            write_scaled_rows(call, row, o + row, kGroup, inverse);
        }
        const auto* tops = reinterpret_cast<const _Float16*>(maximum);
        for (int row = 0; call.row_maximum != nullptr && row < call.queries; ++row) {
            call.row_maximum[row] = static_cast<float>(tops[row]);
            call.row_sum[row] = sum[row];
        }
    }
};

}  // namespace

void attention_avx512fp16(const AttentionCall& call) { Block(call).run(); }

}  // namespace zoetrope::kernels
