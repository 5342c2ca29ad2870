// Inside of denoise/: the quantile of the beta distribution, which the beta schedule of noise
// levels is made of.
//
// A pure function; any thread.
#pragma once

namespace zoetrope {

// x where the regularised incomplete beta function I_x(alpha, beta) is p, for p in [0, 1] and
// alpha, beta in (0, 1]; within 2e-15 of scipy.stats.beta.ppf.
double beta_quantile(double p, double alpha, double beta);

}  // namespace zoetrope
