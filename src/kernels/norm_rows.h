// The algorithm of the vector kernels of norm.h, written once over a register file M.
//
// A row is read from memory once and then found in the first-level cache: LayerNorm passes over it
// for the mean, for the variance about that mean, and for the result. Everything has internal
// linkage: each instruction-set file that includes this has its own copy.
//
// M (Pair of norm_pair.h) offers: Vector, kLanes; set, add, sub, mul, div, min and max (the second
// argument where one is NaN), round, root, multiply_add(a, b, c) = ab + c, scale(x, n) = x 2^n for
// whole n, sum(x) over the lanes; load and store of float32 and of bf16, Whole or Part of a vector
// (zeros behind); keep(x, part), zeros behind; twice(at, extent), each of the next kLanes / 2
// floats in two lanes; rotate(x, cos, sin): even lanes x cos - (right neighbour) sin, odd lanes x
// cos + (left neighbour) sin.
//
// `flatten` has all of that inlined: GCC 12 passes pairs of registers through memory otherwise.
#pragma once

#include "kernels/norm.h"
#include "kernels/norm_math.h"
#include "kernels/norm_pair.h"

namespace zoetrope::kernels {
namespace {

// Runs work(first, extent) over [0, count) in vectors.
template <class M, class Work>
inline void sweep(std::int64_t count, const Work& work) {
    std::int64_t i = 0;
    for (; i + M::kLanes <= count; i += M::kLanes) work(i, Whole{});
    if (i < count) work(i, Part{static_cast<int>(count - i)});
}

// The sum over a row, in two times kLanes partial sums. term(sum, first, extent) is sum with the
// terms of a vector added.
template <class M, class Term>
inline float total(std::int64_t count, const Term& term) {
    typename M::Vector even = M::set(0.0F), odd = M::set(0.0F);
    std::int64_t i = 0;
    for (; i + 2 * M::kLanes <= count; i += 2 * M::kLanes) {
        even = term(even, i, Whole{});
        odd = term(odd, i + M::kLanes, Whole{});
    }
    sweep<M>(count - i, [&](auto rest, auto extent) { even = term(even, i + rest, extent); });
    return M::sum(M::add(even, odd));
}

template <class M, class X, class Y>
struct NormRows {
    using Vector = typename M::Vector;

    const NormCall& call;

    [[gnu::flatten]] void run() const {
        for (std::int64_t row = 0; row < call.rows; ++row) {
            const X* x = static_cast<const X*>(call.x.data) + row * call.x.stride;
            Y* out = static_cast<Y*>(call.out.data) + row * call.out.stride;
            if (call.offset != nullptr) {
                layer_norm(x, out);
            } else if (call.cos != nullptr) {
                rms_norm_rotary(x, out, call.cos + row * call.pairs, call.sin + row * call.pairs);
            } else {
                rms_norm(x, out);
            }
        }
    }

    // 1 / sqrt(sum / channels + eps)
    Vector inverse_root(float sum) const {
        const float mean = sum / static_cast<float>(call.channels);
        return M::div(M::set(1.0F), M::root(M::set(mean + call.eps)));
    }

    // Begins to read a vector of the next row into the first-level cache.
    static void fetch(const X* at) {
        constexpr int line = 64 / sizeof(X);
#pragma GCC unroll 4
        for (int i = 0; i < M::kLanes; i += line) __builtin_prefetch(at + i, 0, 3);
    }

    void layer_norm(const X* x, Y* out) const {
        const float sum = total<M>(call.channels, [&](Vector before, auto i, auto extent) {
            return M::add(before, M::load(x + i, extent));
        });
        const Vector mean = M::set(sum / static_cast<float>(call.channels));
        const float squares = total<M>(call.channels, [&](Vector before, auto i, auto extent) {
            const Vector centred = M::keep(M::sub(M::load(x + i, extent), mean), extent);
            return M::multiply_add(centred, centred, before);
        });
        const Vector inverse = inverse_root(squares);
        sweep<M>(call.channels, [&](auto i, auto extent) {
            fetch(x + call.x.stride + i);
            const Vector normed = M::mul(M::sub(M::load(x + i, extent), mean), inverse);
            const Vector factor = M::load(call.factor + i, extent);
            const Vector offset = M::load(call.offset + i, extent);
            M::store(out + i, M::multiply_add(normed, factor, offset), extent);
        });
    }

    Vector inverse_rms(const X* x) const {
        return inverse_root(total<M>(call.channels, [&](Vector before, auto i, auto extent) {
            const Vector values = M::load(x + i, extent);
            return M::multiply_add(values, values, before);
        }));
    }

    void rms_norm(const X* x, Y* out) const {
        const Vector inverse = inverse_rms(x);
        sweep<M>(call.channels, [&](auto i, auto extent) {
            fetch(x + call.x.stride + i);
            const Vector factor = M::load(call.factor + i, extent);
            M::store(out + i, M::mul(M::mul(M::load(x + i, extent), inverse), factor), extent);
        });
    }

    void rms_norm_rotary(const X* x, Y* out, const float* cos, const float* sin) const {
        const Vector inverse = inverse_rms(x);
        const std::int64_t head = 2 * call.pairs;
        sweep<M>(head, [&](auto i, auto extent) {
            const Vector c = M::twice(cos + i / 2, extent), s = M::twice(sin + i / 2, extent);
            for (std::int64_t at = i; at < call.channels; at += head) {
                fetch(x + call.x.stride + at);
                const Vector factor = M::load(call.factor + at, extent);
                const Vector normed = M::mul(M::mul(M::load(x + at, extent), inverse), factor);
                M::store(out + at, M::rotate(normed, c, s), extent);
            }
        });
    }
};

template <class M, class X>
[[gnu::flatten]] void add_rows(const AddCall& call) {
    for (std::int64_t row = 0; row < call.rows; ++row) {
        float* sum = static_cast<float*>(call.sum.data) + row * call.sum.stride;
        const X* x = static_cast<const X*>(call.x.data) + row * call.x.stride;
        if (call.gate == nullptr) {
            sweep<M>(call.channels, [&](auto i, auto extent) {
                M::store(sum + i, M::add(M::load(sum + i, extent), M::load(x + i, extent)), extent);
            });
        } else {
            sweep<M>(call.channels, [&](auto i, auto extent) {
                M::store(sum + i,
                         M::multiply_add(M::load(x + i, extent), M::load(call.gate + i, extent),
                                         M::load(sum + i, extent)),
                         extent);
            });
        }
    }
}

template <class M, class X, class Y>
[[gnu::flatten]] void activate_rows(const ActivationCall& call) {
    for (std::int64_t row = 0; row < call.rows; ++row) {
        const X* x = static_cast<const X*>(call.x.data) + row * call.x.stride;
        Y* out = static_cast<Y*>(call.out.data) + row * call.out.stride;
        const auto apply = [&](const auto& function) {
            sweep<M>(call.channels, [&](auto i, auto extent) {
                M::store(out + i, function(M::load(x + i, extent)), extent);
            });
        };
        switch (call.which) {
            case Activation::gelu_tanh: apply([](auto v) { return gelu_tanh<M>(v); }); break;
            case Activation::silu: apply([](auto v) { return silu<M>(v); }); break;
        }
    }
}

template <class M>
struct NormTable {
    static void normalize(const NormCall& call) {
        const bool narrow = call.out.type == Element::bf16;
        if (call.x.type == Element::fp32) {
            narrow ? NormRows<M, float, Bf16>{call}.run() : NormRows<M, float, float>{call}.run();
        } else {
            narrow ? NormRows<M, Bf16, Bf16>{call}.run() : NormRows<M, Bf16, float>{call}.run();
        }
    }

    static void add(const AddCall& call) {
        call.x.type == Element::fp32 ? add_rows<M, float>(call) : add_rows<M, Bf16>(call);
    }

    static void activate(const ActivationCall& call) {
        const bool narrow = call.out.type == Element::bf16;
        if (call.x.type == Element::fp32) {
            narrow ? activate_rows<M, float, Bf16>(call) : activate_rows<M, float, float>(call);
        } else {
            narrow ? activate_rows<M, Bf16, Bf16>(call) : activate_rows<M, Bf16, float>(call);
        }
    }

    static constexpr NormKernels kKernels = {normalize, add, activate};
};

}  // namespace
}  // namespace zoetrope::kernels
