#include "ops/attention.h"

#include "base/error.h"
#include "ops/attention_cpu.h"
#include "ops/peak.h"
#include "ops/stats.h"

#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include <array>
#include <cmath>
#include <string>

namespace zoetrope::ops {
namespace {

thread_local AttentionBackend forced = AttentionBackend::automatic;

// [B, L, H, D] -> [B, H, L, D]
at::Tensor heads_first(const at::Tensor& x) { return x.transpose(1, 2); }

// The whole matrix of logits in float32: exact, slow, and the only one that gives log_sum_exp.
AttentionResult attention_reference(const AttentionArgs& args) {
    const at::Tensor q = heads_first(args.q).to(at::kFloat);
    const at::Tensor k = heads_first(args.k).to(at::kFloat);
    const at::Tensor v = heads_first(args.v).to(at::kFloat);
    at::Tensor logits = at::matmul(q, k.transpose(2, 3)).mul_(args.logit_scale());
    if (args.bias.defined()) logits.add_(args.bias);
    AttentionResult result;
    if (args.log_sum_exp) result.log_sum_exp = at::logsumexp(logits, {3});
    result.out =
        at::matmul(at::softmax(logits, 3), v).transpose(1, 2).to(args.q.scalar_type()).contiguous();
    return result;
}

// LibTorch's own choice: its flash attention on the CPU, flash, cuDNN or the vendor's on a GPU.
AttentionResult attention_aten(const AttentionArgs& args) {
    const std::int64_t batch = args.q.size(0);
    const auto expand = [batch](const at::Tensor& x) {
        return x.size(0) == batch ? x : x.expand({batch, -1, -1, -1});
    };
    const std::optional<at::Tensor> bias =
        args.bias.defined() ? std::optional<at::Tensor>(args.bias) : std::nullopt;
    at::Tensor out = at::scaled_dot_product_attention(
        heads_first(args.q), expand(heads_first(args.k)), expand(heads_first(args.v)), bias,
        /*dropout_p=*/0.0, /*is_causal=*/false, args.logit_scale());
    return {out.transpose(1, 2).contiguous(), {}};
}

// Whether ATen answers sooner, because packing K and V costs more than the kernel saves. The speed
// over ATen's with heads of 128 channels on one core of an Emerald Rapids Xeon, queries x keys:
// float32 96 x 2048 0.80, 256 x 256 0.89, 384 x 384 1.05, 4096 x 32 0.99; bf16 (by fp16) 32 x 512
// 0.55, 64 x 2048 0.93, 96 x 96 1.27, 96 x 2048 1.23, 2048 x 16 1.37, 4096 x 32 0.98.
bool is_small(const AttentionArgs& args) {
    const std::int64_t queries = args.q.size(1), logits = queries * args.k.size(1);
    if (args.q.scalar_type() == at::kBFloat16) return queries < 96;
    return queries < 192 || logits < 1 << 17;
}

kernels::Isa isa_of(const AttentionArgs& args) {
    return args.int8 ? kernels::isa() : attention_cpu_isa(args.q.scalar_type());
}

bool cpu_takes(const AttentionArgs& args) {
    const bool choose = forced == AttentionBackend::automatic && !args.log_sum_exp;
    if (choose && is_small(args)) return false;
    return attention_cpu_takes(args, isa_of(args));
}

AttentionResult run_cpu(const AttentionArgs& args) { return attention_cpu(args, isa_of(args)); }

// Whether the CPU multiplies int8.
bool has_int8(const AttentionArgs& args) {
    constexpr kernels::Isa kLeast = kernels::Isa::avx512vnni;
    return args.q.is_cpu() && kernels::has(kLeast) && kernels::isa() >= kLeast;
}

// One row per backend, best first; the first that takes the call runs.
struct Row {
    AttentionBackend backend;
    std::string_view name;
    bool (*takes)(const AttentionArgs&);
    AttentionResult (*run)(const AttentionArgs&);
};

constexpr std::array kBackends = {
    Row{AttentionBackend::cpu, "cpu", cpu_takes, run_cpu},
    Row{AttentionBackend::aten, "aten", [](const AttentionArgs& args) { return !args.log_sum_exp; },
        attention_aten},
    Row{AttentionBackend::reference, "reference", [](const AttentionArgs&) { return true; },
        attention_reference},
};

void check_shapes(const AttentionArgs& args) {
    const auto &q = args.q, &k = args.k, &v = args.v;
    ZT_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, internal,
             "attention takes [B, L, H, D]; got {}, {} and {} dimensions", q.dim(), k.dim(),
             v.dim());
    const bool fits = k.sizes() == v.sizes() && q.size(2) == k.size(2) && q.size(3) == k.size(3) &&
                      (k.size(0) == 1 || k.size(0) == q.size(0));
    ZT_CHECK(fits, internal, "attention: q [{}] does not fit k [{}] and v [{}]",
             fmt::join(q.sizes(), ", "), fmt::join(k.sizes(), ", "), fmt::join(v.sizes(), ", "));
    ZT_CHECK(q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type(), internal,
             "attention: q, k and v differ in dtype");
    ZT_CHECK(args.kv_length <= k.size(1), internal, "attention: kv_length {} of {} keys",
             args.kv_length, k.size(1));
}

// "attention BFloat16 [1, 512, 5, 12], 512 keys: no kernel"
std::string description(const AttentionArgs& args) {
    return fmt::format("attention {} [{}], {} keys{}{}: no kernel",
                       c10::toString(args.q.scalar_type()), fmt::join(args.q.sizes(), ", "),
                       args.k.size(1), args.int8 ? ", int8" : "",
                       args.bias.defined() ? ", bias" : "");
}

double flop_of(const AttentionArgs& args) {
    return 4.0 * static_cast<double>(args.q.numel()) * static_cast<double>(args.k.size(1));
}

}  // namespace

double AttentionArgs::logit_scale() const {
    return scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(q.size(3)));
}

AttentionResult attention(const AttentionArgs& given) {
    check_shapes(given);
    AttentionArgs args = given;
    if (args.kv_length >= 0 && args.kv_length < args.k.size(1)) {
        args.k = args.k.narrow(1, 0, args.kv_length);
        args.v = args.v.narrow(1, 0, args.kv_length);
        if (args.bias.defined()) args.bias = args.bias.narrow(3, 0, args.kv_length);
    }
    const OperatorScope scope(args.name, flop_of(args));
    if (args.int8 && args.q.scalar_type() == at::kBFloat16 && amx_is_fastest())
        args.int8 = false;  // tiles of bf16 are quicker than VNNI
    const bool no_int8 = args.int8 && !has_int8(args);
    if (no_int8 || (args.q.is_cpu() && !attention_cpu_takes(args, isa_of(args))))
        count_fallback(description(args));
    if (no_int8) args.int8 = false;
    for (const Row& row : kBackends) {
        if (forced != AttentionBackend::automatic && forced != row.backend) continue;
        if (row.takes(args)) return row.run(args);
    }
    fail(ErrorKind::unsupported, "the attention backend '{}' does not take this call",
         name_of(forced));
}

std::string_view name_of(AttentionBackend backend) {
    for (const Row& row : kBackends) {
        if (row.backend == backend) return row.name;
    }
    return "auto";
}

ForceAttentionBackend::ForceAttentionBackend(AttentionBackend backend) : previous_(forced) {
    forced = backend;
}

ForceAttentionBackend::~ForceAttentionBackend() { forced = previous_; }

}  // namespace zoetrope::ops
