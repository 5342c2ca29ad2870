// Two registers of a register file R side by side, so that bf16 numbers fill a register in memory
// and come and go with few instructions. Internal linkage: each file that includes this has its own
// copy.
//
// R offers: Vector, kLanes, the arithmetic of norm_rows.h on one register; load(at, count) and
// store(at, x, count) of `count` float32 lanes (all, some or none; zeros behind), mask(x, count),
// spread(at, count): each float in two lanes; widen(at, low, high) and narrow(at, low, high) of 2
// kLanes numbers of bf16, the latter to nearest even.
#pragma once

#include <cstdint>

namespace zoetrope::kernels {
namespace {

struct Bf16 {
    std::uint16_t bits;
};

struct Whole {};
struct Part {
    int count;  // lanes, fewer than all
};

template <class R>
struct Pair {
    struct Vector {
        typename R::Vector low, high;
    };
    static constexpr int kHalf = R::kLanes, kLanes = 2 * kHalf;

    static Vector set(float x) { return {R::set(x), R::set(x)}; }
    static Vector add(Vector a, Vector b) { return {R::add(a.low, b.low), R::add(a.high, b.high)}; }
    static Vector sub(Vector a, Vector b) { return {R::sub(a.low, b.low), R::sub(a.high, b.high)}; }
    static Vector mul(Vector a, Vector b) { return {R::mul(a.low, b.low), R::mul(a.high, b.high)}; }
    static Vector div(Vector a, Vector b) { return {R::div(a.low, b.low), R::div(a.high, b.high)}; }
    static Vector min(Vector a, Vector b) { return {R::min(a.low, b.low), R::min(a.high, b.high)}; }
    static Vector max(Vector a, Vector b) { return {R::max(a.low, b.low), R::max(a.high, b.high)}; }
    static Vector round(Vector x) { return {R::round(x.low), R::round(x.high)}; }
    static Vector root(Vector x) { return {R::root(x.low), R::root(x.high)}; }
    static Vector scale(Vector x, Vector n) {
        return {R::scale(x.low, n.low), R::scale(x.high, n.high)};
    }
    static Vector multiply_add(Vector a, Vector b, Vector c) {
        return {R::multiply_add(a.low, b.low, c.low), R::multiply_add(a.high, b.high, c.high)};
    }
    static Vector rotate(Vector x, Vector cos, Vector sin) {
        return {R::rotate(x.low, cos.low, sin.low), R::rotate(x.high, cos.high, sin.high)};
    }
    static float sum(Vector x) { return R::sum(R::add(x.low, x.high)); }
    static Vector keep(Vector x, Whole /*all*/) { return x; }
    static Vector keep(Vector x, Part part) {
        return {R::mask(x.low, part.count), R::mask(x.high, part.count - kHalf)};
    }

    static Vector load(const float* at, Whole /*all*/) {
        return {R::load(at, kHalf), R::load(at + kHalf, kHalf)};
    }
    static Vector load(const float* at, Part part) {
        return {R::load(at, part.count), R::load(at + kHalf, part.count - kHalf)};
    }
    static Vector load(const Bf16* at, Whole /*all*/) {
        Vector x;
        R::widen(at, x.low, x.high);
        return x;
    }
    static Vector load(const Bf16* at, Part part) {
        Bf16 all[kLanes] = {};
        for (int i = 0; i < part.count; ++i) all[i] = at[i];
        return load(all, Whole{});
    }
    static void store(float* at, Vector x, Whole /*all*/) {
        R::store(at, x.low, kHalf);
        R::store(at + kHalf, x.high, kHalf);
    }
    static void store(float* at, Vector x, Part part) {
        R::store(at, x.low, part.count);
        R::store(at + kHalf, x.high, part.count - kHalf);
    }
    static void store(Bf16* at, Vector x, Whole /*all*/) { R::narrow(at, x.low, x.high); }
    static void store(Bf16* at, Vector x, Part part) {
        Bf16 all[kLanes];
        store(all, x, Whole{});
        for (int i = 0; i < part.count; ++i) at[i] = all[i];
    }
    static Vector twice(const float* at, Whole /*all*/) {
        return {R::spread(at, kHalf / 2), R::spread(at + kHalf / 2, kHalf / 2)};
    }
    static Vector twice(const float* at, Part part) {
        return {R::spread(at, part.count / 2), R::spread(at + kHalf / 2, (part.count - kHalf) / 2)};
    }
};

}  // namespace
}  // namespace zoetrope::kernels
