#include "engine/worker.h"

#include "base/timer.h"
#include "ops/share_out.h"

#include <utility>

namespace zoetrope {

Worker::Worker(const Options& options)
    : limit_(options.limit),
      thread_([this, parallel = options.parallel_operators] { run(parallel); }) {}

Worker::~Worker() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    changed_.notify_all();
}

template <typename Ready>
void Worker::wait_until(std::unique_lock<std::mutex>& lock, Ready ready) {
    const Timer timer;
    caller_waits_ = true;
    changed_.wait(lock, [&] { return error_ != nullptr || ready(); });
    caller_waits_ = false;
    waited_ += timer.seconds();
    if (error_) std::rethrow_exception(error_);
}

void Worker::push(std::function<void()> job, std::int64_t weight) {
    std::unique_lock lock(mutex_);
    wait_until(lock, [&] { return jobs_.empty() || weight_ + weight <= limit_; });
    jobs_.push_back({std::move(job), weight});
    weight_ += weight;
    lock.unlock();
    changed_.notify_all();
}

void Worker::wait() {
    std::unique_lock lock(mutex_);
    wait_until(lock, [&] { return jobs_.empty(); });
}

bool Worker::is_idle() const {
    const std::lock_guard lock(mutex_);
    return error_ != nullptr || jobs_.empty();
}

bool Worker::caller_waits() const {
    const std::lock_guard lock(mutex_);
    return caller_waits_;
}

double Worker::waited() const {
    const std::lock_guard lock(mutex_);
    return waited_;
}

void Worker::run(bool parallel_operators) {
    if (!parallel_operators) ops::use_one_thread();
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [&] { return ending_ || (!jobs_.empty() && !error_); });
        if (ending_) return;
        Job& job = jobs_.front();  // stays where it is while others are pushed
        lock.unlock();
        std::exception_ptr error;
        try {
            job.work();
            job.work = nullptr;  // what it holds goes before the next begins
        } catch (...) {
            error = std::current_exception();
        }
        lock.lock();
        weight_ -= job.weight;
        jobs_.pop_front();
        error_ = error;
        changed_.notify_all();
    }
}

}  // namespace zoetrope
