// exp and the activations on the vectors of a register file M (norm_rows.h), for float32.
//
// The stated errors are the largest against float64 over every 17th float, the same with 8 and 16
// lanes. Internal linkage: each file that includes this has its own copy.
#pragma once

namespace zoetrope::kernels {
namespace {

// sum of c[i] x^i
template <class M, int count>
typename M::Vector polynomial(typename M::Vector x, const float (&c)[count]) {
    typename M::Vector sum = M::set(c[count - 1]);
#pragma GCC unroll 16
    for (int i = count - 2; i >= 0; --i) sum = M::multiply_add(sum, x, M::set(c[i]));
    return sum;
}

// e^x, relative error 8.4e-8. x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts of which the
// first has few bits (Cody and Waite, 1980); e^r = 1 + r + r^2 p(r), p by Remez' algorithm for the
// least relative error (3e-9).
template <class M>
typename M::Vector exp(typename M::Vector x) {
    using Vector = typename M::Vector;
    constexpr float kP[] = {0.4999999403953552F, 0.1666651964187622F, 0.04166839271783829F,
                            0.0083687799051404F, 0.0013814481208100915F};
    constexpr float kLog2E = 1.4426950408889634F;
    constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
    // Beyond these 0 and infinity; NaN stays.
    x = M::max(M::set(-104.0F), M::min(M::set(89.0F), x));
    const Vector n = M::round(M::mul(x, M::set(kLog2E)));
    Vector r = M::multiply_add(n, M::set(-kLn2High), x);
    r = M::multiply_add(n, M::set(-kLn2Low), r);
    const Vector p = M::multiply_add(M::mul(r, r), polynomial<M>(r, kP), r);
    return M::scale(M::add(p, M::set(1.0F)), n);
}

// Error 1.3e-7 |x|; relative 2.2e-7 for x > -1.
template <class M>
typename M::Vector gelu_tanh(typename M::Vector x) {
    constexpr float kTwoRoots = -1.5957691216057308F;  // -2 sqrt(2 / pi)
    constexpr float kCubic = 0.044715F * kTwoRoots;
    const auto slope = M::multiply_add(M::mul(x, x), M::set(kCubic), M::set(kTwoRoots));
    return M::div(x, M::add(M::set(1.0F), exp<M>(M::mul(x, slope))));
}

// Error 1.2e-7 |x|; relative 1.5e-7 for x > -1.
template <class M>
typename M::Vector silu(typename M::Vector x) {
    return M::div(x, M::add(M::set(1.0F), exp<M>(M::sub(M::set(0.0F), x))));
}

}  // namespace
}  // namespace zoetrope::kernels
