#include "denoise/beta_quantile.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace zoetrope {
namespace {

// The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), evaluated
// from the front by Lentz' method. Converges fast for x < (a + 1) / (a + b + 2).
double continued_fraction(double a, double b, double x) {
    constexpr double kTiny = 1e-300;  // stands for a zero that would be divided by
    constexpr int kMostTerms = 200;   // about 30 are needed
    const auto nonzero = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
    double c = 1;
    double d = 1 / nonzero(1 - (a + b) * x / (a + 1));
    double fraction = d;
    for (int m = 1; m < kMostTerms; ++m) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double change = 1;
        for (const double term : {even, odd}) {
            d = 1 / nonzero(1 + term * d);
            c = nonzero(1 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (std::abs(change - 1) < std::numeric_limits<double>::epsilon()) break;
    }
    return fraction;
}

double complete_beta(double a, double b) {
    return std::tgamma(a) * std::tgamma(b) / std::tgamma(a + b);
}

struct Incomplete {
    double value;      // I_x(a, b)
    double log_slope;  // d log I / d log x
};

// For x up to 1/2 and a, b up to 1, where the fraction needs no reflection of its argument.
Incomplete incomplete_beta(double a, double b, double x) {
    const double power = std::pow(x, a) * std::pow(1 - x, b) / complete_beta(a, b);
    const double value = power * continued_fraction(a, b, x) / a;
    return {.value = value, .log_slope = power / ((1 - x) * value)};
}

// For p up to I_1/2(a, b).
double lower_quantile(double p, double a, double b) {
    if (p <= 0) return 0;
    // I is at least x^a / (a B) for b <= 1, so this lies above the quantile; log I is convex in
    // log x, and Newton's steps come down to it without passing it.
    double log_x = std::min(std::log(p * a * complete_beta(a, b)) / a, std::log(0.5));
    constexpr int kMostSteps = 60;
    for (int i = 0; i < kMostSteps; ++i) {
        const Incomplete at = incomplete_beta(a, b, std::exp(log_x));
        const double step = std::log(at.value / p) / at.log_slope;
        log_x -= step;
        if (std::abs(step) < 1e-15) break;
    }
    return std::exp(log_x);
}

}  // namespace

double beta_quantile(double p, double alpha, double beta) {
    if (p >= 1) return 1;
    if (p <= incomplete_beta(alpha, beta, 0.5).value) return lower_quantile(p, alpha, beta);
    return 1 - lower_quantile(1 - p, beta, alpha);
}

}  // namespace zoetrope
