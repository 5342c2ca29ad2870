#include "ops/stats.h"

#include "base/error.h"

#include <atomic>
#include <chrono>
#include <mutex>

namespace zoetrope::ops {
namespace {

struct Counters {
    std::mutex mutex;
    std::map<std::string, OperatorStats> operators;
    std::map<std::string, std::int64_t> fallbacks;
};

std::atomic<bool> collecting{false};

Counters& counters() {
    static Counters instance;
    return instance;
}

thread_local OperatorScope* current_scope = nullptr;

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Collection::Collection() {
    ZT_CHECK(!collecting.exchange(true), internal,
             "operator statistics are already being collected");
    clear();
}

Collection::~Collection() { collecting = false; }

std::map<std::string, OperatorStats> Collection::operators() const {
    const std::lock_guard lock(counters().mutex);
    return counters().operators;
}

std::map<std::string, std::int64_t> Collection::fallbacks() const {
    const std::lock_guard lock(counters().mutex);
    return counters().fallbacks;
}

void Collection::clear() {
    const std::lock_guard lock(counters().mutex);
    counters().operators.clear();
    counters().fallbacks.clear();
}

OperatorScope::OperatorScope(const char* name, double flop) : name_(name), flop_(flop) {
    active_ = collecting.load(std::memory_order_relaxed);
    if (!active_) return;
    outer_ = current_scope;
    current_scope = this;
    started_ = now();
}

OperatorScope::~OperatorScope() {
    if (!active_) return;
    const double seconds = now() - started_;
    current_scope = outer_;
    if (outer_ != nullptr) outer_->inner_seconds_ += seconds;
    const std::lock_guard lock(counters().mutex);
    OperatorStats& stats = counters().operators[name_];
    stats.calls += 1;
    stats.seconds += seconds - inner_seconds_;
    stats.flop += flop_;
}

void count_fallback(std::string_view what) {
    if (!collecting.load(std::memory_order_relaxed)) return;
    const std::lock_guard lock(counters().mutex);
    counters().fallbacks[std::string(what)] += 1;
}

}  // namespace zoetrope::ops
