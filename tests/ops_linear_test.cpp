// The linear layers of the CPU: every kernel it has against float64.
#include "ops/linear.h"

#include "kernels/gemm.h"
#include "ops/brgemm.h"
#include "ops/linear_cpu.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <new>

namespace zoetrope::ops {
namespace {

using kernels::Isa;

std::vector<Isa> float_kernels() {
    std::vector<Isa> found;
    for (const Isa isa : {Isa::avx512, Isa::avx512bf16, Isa::avx512fp16}) {
        if (kernels::has(isa)) found.push_back(isa);
    }
    if (brgemm_runs(Isa::amx)) found.push_back(Isa::amx);
    return found;
}

// Of int8 weights; none where ZOETROPE_ISA keeps them from being packed.
std::vector<Isa> int8_kernels() {
    if (!takes_int8(at::kCPU, at::kBFloat16)) return {};
    return {Isa::avx512vnni, Isa::amxint8};
}

double relative_error(const at::Tensor& got, const at::Tensor& wanted) {
    const at::Tensor difference = got.to(at::kDouble) - wanted.to(at::kDouble);
    return (difference.norm() / wanted.to(at::kDouble).norm()).item<double>();
}

struct Sizes {
    std::int64_t rows, in, out;
};

// Around the edges of tiles (8 rows, 48 or 96 columns), of parts of the depth (256 words) and of
// blocks of rows (384), and depths that are no whole word.
constexpr Sizes kSizes[] = {{1, 1, 1},     {7, 31, 47},    {8, 64, 48},     {9, 65, 49},
                            {30, 300, 97}, {95, 257, 191}, {385, 512, 200}, {801, 1030, 1200}};

// A copy that ends where memory does: whoever reads on is killed.
class BeforeTheEnd {
public:
    explicit BeforeTheEnd(const at::Tensor& like) {
        const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        const std::size_t room = (like.nbytes() + page - 1) / page * page;
        size_ = room + page;
        memory_ =
            ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
        char* end = static_cast<char*>(memory_) + room;
        ::mprotect(end, page, PROT_NONE);
        tensor = at::from_blob(end - like.nbytes(), like.sizes(), like.options()).copy_(like);
    }
    ~BeforeTheEnd() { ::munmap(memory_, size_); }
    BeforeTheEnd(const BeforeTheEnd&) = delete;
    BeforeTheEnd& operator=(const BeforeTheEnd&) = delete;

    at::Tensor tensor;

private:
    void* memory_ = nullptr;
    std::size_t size_ = 0;
};

TEST(Linear, FloatKernelsReadNothingBehindTheirOperands) {
    at::manual_seed(2);
    for (const Isa isa : float_kernels()) {
        for (const std::int64_t depth : {1, 2, 15, 17, 33, 47, 65, 257}) {
            const BeforeTheEnd x(at::randn({9, depth}).to(at::kBFloat16));
            const BeforeTheEnd w(at::randn({50, depth}).to(at::kBFloat16));
            const BeforeTheEnd bias(at::randn({50}).to(at::kBFloat16));
            const LinearArgs args{.x = x.tensor, .weight = {w.tensor}, .bias = bias.tensor};
            const at::Tensor exact = at::linear(x.tensor.to(at::kDouble), w.tensor.to(at::kDouble),
                                                bias.tensor.to(at::kDouble));
            EXPECT_LT(relative_error(linear_cpu(args, isa), exact), 5e-3)
                << kernels::name_of(isa) << " " << depth;
        }
    }
}

TEST(Linear, FloatKernelsMatchFloat64) {
    at::manual_seed(1);
    for (const Isa isa : float_kernels()) {
        for (const auto& [rows, in, out] : kSizes) {
            const at::Tensor x = at::randn({rows, in}).to(at::kBFloat16);
            const at::Tensor w = (at::randn({out, in}) * 0.05).to(at::kBFloat16);
            const at::Tensor bias = at::randn({out}).to(at::kBFloat16);
            const at::Tensor exact =
                at::linear(x.to(at::kDouble), w.to(at::kDouble), bias.to(at::kDouble));
            const LinearArgs args{.x = x, .weight = {w}, .bias = bias};
            ASSERT_TRUE(linear_cpu_takes(args, isa));
            // Rounding the result to bf16 alone gives 1.66e-3, with sums in fp16 it is 1.8e-3 to
            // 2.0e-3; a single number may be off by 2^-8.
            EXPECT_LT(relative_error(linear_cpu(args, isa), exact),
                      rows * out > 2000 ? 2.4e-3 : 5e-3)
                << kernels::name_of(isa) << " " << rows << " " << in << " " << out;
        }
    }
}

TEST(Linear, EpiloguesMatchFloat64) {
    at::manual_seed(1);
    const at::Tensor x = at::randn({33, 200}).to(at::kBFloat16);
    const at::Tensor w = (at::randn({130, 200}) * 0.1).to(at::kBFloat16);
    const at::Tensor plain = at::linear(x.to(at::kDouble), w.to(at::kDouble));
    for (const Isa isa : float_kernels()) {
        const auto run = [&](Epilogue epilogue) {
            return linear_cpu({.x = x, .weight = {w}, .epilogue = epilogue}, isa);
        };
        EXPECT_LT(relative_error(run(Epilogue::gelu_tanh), at::gelu(plain, "tanh")), 2.4e-3);
        EXPECT_LT(relative_error(run(Epilogue::gelu_erf), at::gelu(plain, "none")), 3e-3);
        EXPECT_LT(relative_error(run(Epilogue::silu), at::silu(plain)), 2.4e-3);
    }
}

TEST(Linear, Int8IsAsGoodAsItsRounding) {
    at::manual_seed(1);
    if (int8_kernels().empty()) GTEST_SKIP() << "no VNNI";
    for (const auto& [rows, in, out] : kSizes) {
        if (in < 64) continue;
        const at::Tensor x = at::randn({rows, in}).to(at::kBFloat16);
        const at::Tensor w = (at::randn({out, in}) * 0.05).to(at::kBFloat16);
        const at::Tensor bias = at::randn({out}).to(at::kBFloat16);
        const at::Tensor exact =
            at::linear(x.to(at::kDouble), w.to(at::kDouble), bias.to(at::kDouble));
        const LinearArgs args{.x = x, .weight = quantise_int8(w), .bias = bias};
        for (const Isa isa : int8_kernels()) {
            ASSERT_TRUE(linear_cpu_takes(args, isa));
            // Two roundings of a step of 3.5 sigma / 127, uniform: 0.008 each of the product.
            EXPECT_LT(relative_error(linear_cpu(args, isa), exact), 0.016)
                << kernels::name_of(isa) << " " << rows << " " << in << " " << out;
        }
    }
}

// The weight alone in 8 bits: one rounding of a step of 3.5 sigma / 127, in every dtype.
TEST(Linear, Int8RowsSaveMemoryOnly) {
    at::manual_seed(3);
    const at::Tensor w = at::randn({200, 520}) * 0.05;
    const Matrix narrow = quantise_int8_rows(w);
    EXPECT_EQ(narrow.bytes(), 200 * 520 + 4 * 200);
    const at::Tensor x = at::randn({100, 520});
    const at::Tensor exact = at::linear(x.to(at::kDouble), w.to(at::kDouble));
    const at::Tensor widened =
        narrow.data.to(at::kDouble) * narrow.factors.to(at::kDouble).unsqueeze(1);
    const at::Tensor rounded = at::linear(x.to(at::kDouble), widened);
    EXPECT_LT(relative_error(rounded, exact), 0.009);
    EXPECT_LT(relative_error(linear({.x = x, .weight = narrow}), rounded), 1e-6);
    for (const Isa isa : float_kernels()) {
        const LinearArgs args{.x = x.to(at::kBFloat16), .weight = narrow};
        ASSERT_TRUE(linear_cpu_takes(args, isa));
        // bf16 x, bf16 result, and with bf16 products the widened weight is exact.
        EXPECT_LT(relative_error(linear_cpu(args, isa), rounded), 3.2e-3) << kernels::name_of(isa);
    }
}

// data + up down, in one product or two; `out` as given, and the epilogue behind both.
TEST(Linear, LowRankAdditionsMatchFloat64) {
    at::manual_seed(4);
    for (const auto& [rows, in, out] : kSizes) {
        for (const std::int64_t rank : {1, 16, 33, 64, 250, 300, 600}) {
            const at::Tensor x = at::randn({rows, in}).to(at::kBFloat16);
            const at::Tensor w = (at::randn({out, in}) * 0.05).to(at::kBFloat16);
            const at::Tensor down = (at::randn({rank, in}) * 0.1).to(at::kBFloat16);
            const at::Tensor up = (at::randn({out, rank}) * 0.1).to(at::kBFloat16);
            const at::Tensor bias = at::randn({out}).to(at::kBFloat16);
            const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
            const at::Tensor exact =
                at::linear(wide(x), wide(w) + at::matmul(wide(up), wide(down)), wide(bias));
            const LinearArgs args{
                .x = x, .weight = {.data = w, .low_rank = {down, up}}, .bias = bias};
            // Beside the result the hidden numbers are rounded to bf16 or fp16.
            const double bar = rows * out > 2000 ? 3.3e-3 : 1e-2;
            for (const Isa isa : float_kernels()) {
                ASSERT_TRUE(linear_cpu_takes(args, isa));
                EXPECT_LT(relative_error(linear_cpu(args, isa), exact), bar)
                    << kernels::name_of(isa) << " " << rows << " " << in << " " << out << " "
                    << rank;
            }
            // Two roundings of the result where the second product is added to the first.
            EXPECT_LT(relative_error(linear(args), exact), 1.5 * bar) << rank;
            LinearArgs precise{.x = x.to(at::kFloat),
                               .weight = {.data = w.to(at::kFloat),
                                          .low_rank = {down.to(at::kFloat), up.to(at::kFloat)}},
                               .bias = bias.to(at::kFloat),
                               .out = at::empty({rows, out})};
            EXPECT_LT(relative_error(linear(precise), exact), 1e-6);
            EXPECT_LT(relative_error(precise.out, exact), 1e-6);
            precise.epilogue = Epilogue::gelu_tanh;
            EXPECT_LT(relative_error(linear(precise), at::gelu(exact, "tanh")), 1e-6);
        }
    }
}

TEST(Linear, LowRankAdditionsStandBesideInt8) {
    at::manual_seed(5);
    const at::Tensor x = at::randn({200, 300}).to(at::kBFloat16);
    const at::Tensor w = (at::randn({130, 300}) * 0.05).to(at::kBFloat16);
    const LowRank low{at::randn({32, 300}).to(at::kBFloat16),
                      at::randn({130, 32}).to(at::kBFloat16)};
    const at::Tensor bias = at::randn({130}).to(at::kBFloat16);
    const at::Tensor added = at::matmul(low.up.to(at::kDouble), low.down.to(at::kDouble));
    const at::Tensor exact = at::linear(x.to(at::kDouble), w.to(at::kDouble) + added);
    std::vector<Matrix> matrices = {quantise_int8_rows(w)};
    if (takes_int8(at::kCPU, at::kBFloat16)) matrices.push_back(quantise_int8(w));
    for (Matrix& matrix : matrices) {
        const at::Tensor alone = linear({.x = x, .weight = matrix});
        matrix.low_rank = low;
        // The addition is a hundred times the matrix: the 8 bits of the matrix are not felt. With
        // packed ones x down^T is of int8 too.
        const double bar = matrix.layout == MatrixLayout::int8 ? 0.016 : 4e-3;
        EXPECT_LT(relative_error(linear({.x = x, .weight = matrix}), exact), bar);
        const at::Tensor gelu =
            linear({.x = x, .weight = matrix, .bias = bias, .epilogue = Epilogue::gelu_tanh});
        EXPECT_LT(relative_error(gelu, at::gelu(exact + bias.to(at::kDouble), "tanh")), bar);
        matrix.low_rank = {};
        EXPECT_TRUE(at::equal(linear({.x = x, .weight = matrix}), alone));
    }
}

// Around the edges of blocks of rows, of groups of columns and of parts of the depth.
TEST(Linear, LowRankAdditionsToInt8OfEverySize) {
    if (int8_kernels().empty()) GTEST_SKIP() << "no VNNI";
    at::manual_seed(6);
    for (const auto& [rows, in, out] : kSizes) {
        if (in < 64) continue;
        for (const std::int64_t rank : {1, 40, 130}) {
            const at::Tensor x = at::randn({rows, in}).to(at::kBFloat16);
            const at::Tensor w = (at::randn({out, in}) * 0.05).to(at::kBFloat16);
            const LowRank low{(at::randn({rank, in}) * 0.05).to(at::kBFloat16),
                              at::randn({out, rank}).to(at::kBFloat16)};
            const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
            const at::Tensor exact =
                at::linear(wide(x), wide(w) + at::matmul(wide(low.up), wide(low.down)));
            Matrix matrix = quantise_int8(w);
            matrix.low_rank = low;
            const LinearArgs args{.x = x, .weight = matrix};
            // As for int8 alone; few results have a chance error.
            for (const Isa isa : int8_kernels())
                EXPECT_LT(relative_error(linear_cpu(args, isa), exact),
                          rows * out > 2000 ? 0.016 : 0.03)
                    << kernels::name_of(isa) << " " << rows << " " << in << " " << out << " "
                    << rank;
        }
    }
}

TEST(Linear, Int8OfIntegersIsExact) {
    at::manual_seed(1);
    if (int8_kernels().empty()) GTEST_SKIP() << "no VNNI";
    const at::Tensor x = at::round(at::randn({50, 333}) * 30).clamp(-127, 127);
    const at::Tensor w = at::round(at::randn({70, 333}) * 30).clamp(-127, 127);
    x.select(1, 5).fill_(127);  // so that the factors are 1
    w.select(1, 9).fill_(-127);
    const Matrix packed = quantise_int8(w);
    const at::Tensor exact = at::linear(x.to(at::kDouble), w.to(at::kDouble));
    for (const Isa isa : int8_kernels())
        EXPECT_LT(relative_error(linear_cpu({.x = x, .weight = packed}, isa), exact), 1e-6);
}

// Rows and columns of any magnitude: scaled by powers of two where a kernel needs it.
TEST(Linear, FarRangesOfNumbers) {
    at::manual_seed(2);
    at::Tensor x = at::randn({40, 300});
    at::Tensor w = at::randn({100, 300});
    x.select(0, 3).mul_(1e30);
    x.select(0, 4).mul_(1e-30);
    w.select(0, 7).mul_(100);
    const at::Tensor xb = x.to(at::kBFloat16), wb = w.to(at::kBFloat16);
    const at::Tensor exact = at::linear(xb.to(at::kDouble), wb.to(at::kDouble));
    // Errors as part of what the sum could be at most: |x| |w|.
    const at::Tensor limits =
        at::outer(xb.to(at::kDouble).norm(2, 1), wb.to(at::kDouble).norm(2, 1));
    for (const Isa isa : float_kernels()) {
        const at::Tensor out = linear_cpu({.x = xb, .weight = {wb}}, isa);
        const at::Tensor errors = (out.to(at::kDouble) - exact).abs() / limits;
        // Rounding results of 4 sigma = 0.23 to bf16 gives 4.5e-4.
        EXPECT_LT(errors.max().item<double>(), 1e-3) << kernels::name_of(isa);
    }
}

TEST(Linear, NotANumberStaysInItsRow) {
    at::manual_seed(1);
    at::Tensor x = at::randn({20, 100}).to(at::kBFloat16);
    x[4][50] = std::numeric_limits<float>::quiet_NaN();
    x[9][1] = std::numeric_limits<float>::infinity();
    const at::Tensor w = at::randn({60, 100}).to(at::kBFloat16);
    std::vector<std::pair<LinearArgs, Isa>> calls;
    for (const Isa isa : float_kernels()) calls.push_back({{.x = x, .weight = {w}}, isa});
    for (const Isa isa : int8_kernels())
        calls.push_back({{.x = x, .weight = quantise_int8(w)}, isa});
    for (const auto& [args, isa] : calls) {
        const at::Tensor finite = at::isfinite(linear_cpu(args, isa)).all(1);
        for (std::int64_t row = 0; row < 20; ++row)
            EXPECT_EQ(finite[row].item<bool>(), row != 4 && row != 9) << kernels::name_of(isa);
    }
}

TEST(Linear, BytesDoNotDependOnThreads) {
    at::manual_seed(1);
    const at::Tensor x = at::randn({777, 520}).to(at::kBFloat16);
    const at::Tensor w = at::randn({300, 520}).to(at::kBFloat16);
    const Matrix added{.data = w,
                       .low_rank = {at::randn({40, 520}).to(at::kBFloat16),
                                    at::randn({300, 40}).to(at::kBFloat16)}};
    const int threads = at::get_num_threads();
    for (const Isa isa : float_kernels()) {
        at::set_num_threads(1);
        const at::Tensor one = linear_cpu({.x = x, .weight = {w}}, isa);
        const at::Tensor one_added = linear_cpu({.x = x, .weight = added}, isa);
        at::set_num_threads(3);
        const at::Tensor three = linear_cpu({.x = x, .weight = {w}}, isa);
        const at::Tensor three_added = linear_cpu({.x = x, .weight = added}, isa);
        EXPECT_TRUE(at::equal(one, three)) << kernels::name_of(isa);
        EXPECT_TRUE(at::equal(one_added, three_added)) << kernels::name_of(isa);
    }
    if (takes_int8(at::kCPU, at::kBFloat16)) {
        Matrix narrow = quantise_int8(w);
        narrow.low_rank = added.low_rank;
        at::set_num_threads(1);
        const at::Tensor one = linear({.x = x, .weight = narrow});
        at::set_num_threads(3);
        EXPECT_TRUE(at::equal(one, linear({.x = x, .weight = narrow})));
    }
    at::set_num_threads(threads);
}

}  // namespace
}  // namespace zoetrope::ops
