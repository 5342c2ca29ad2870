#include "kernels/attention_avx512.h"

#include "kernels/attention_block.h"

namespace zoetrope::kernels {
namespace {

struct Float32 : Avx512 {
    static constexpr AttentionLayout kLayout = kAttentionAvx512;

    // Relative error 7e-8, rounding included.
    static Vector exp2(Vector x) {
        constexpr float kCoefficients[] = {0.6931470632553101F,    0.2402293086051941F,
                                           0.055485282093286514F,  0.00967545248568058F,
                                           0.0012467842316254973F, 0.00021612925047520548F};
        return Avx512::exp2(x, kCoefficients);
    }
    static Vector broadcast(const float* word) { return _mm512_set1_ps(*word); }
    static Vector dot(Vector word, Vector column, Vector sum) {
        return _mm512_fmadd_ps(word, column, sum);
    }
    static const void* row(const void* q, std::int64_t elements) {
        return static_cast<const float*>(q) + elements;
    }
    static void store_row(void* out, std::int64_t elements, Vector x) {
        _mm512_storeu_ps(static_cast<float*>(out) + elements, x);
    }
};

}  // namespace

void attention_avx512(const AttentionCall& call) { AttentionBlock<Float32>(call).run(); }

}  // namespace zoetrope::kernels
