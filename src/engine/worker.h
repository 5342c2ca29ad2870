// A thread that does jobs in their order, beside the thread that gives them.
//
// Bounded: push() waits while what was pushed and is not done would weigh more than the limit. A
// job's error ends the work: jobs behind it are dropped, and each later push() and wait() throws
// it. One thread calls; jobs run in the worker's own, which runs tensor operators on itself alone
// unless it is told otherwise.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace zoetrope {

class Worker {
public:
    struct Options {
        std::int64_t limit = 0;           // weight that may be under way
        bool parallel_operators = false;  // jobs may use all operator threads
    };
    explicit Worker(const Options& options);
    ~Worker();  // drops the jobs that wait; returns once the one that runs has ended
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // A job that weighs more than the limit runs alone.
    void push(std::function<void()> job, std::int64_t weight = 0);
    // Until all jobs are done.
    void wait();

    // Whether wait() would return or throw at once.
    bool is_idle() const;
    // Whether the caller is in push() or wait().
    bool caller_waits() const;
    double waited() const;  // seconds that the caller was in push() and wait()

private:
    struct Job {
        std::function<void()> work;
        std::int64_t weight = 0;
    };
    void run(bool parallel_operators);
    template <typename Ready>
    void wait_until(std::unique_lock<std::mutex>& lock, Ready ready);

    const std::int64_t limit_;
    mutable std::mutex mutex_;  // of everything below
    std::condition_variable changed_;
    std::deque<Job> jobs_;     // the first of them runs
    std::int64_t weight_ = 0;  // of all of them
    bool ending_ = false;
    bool caller_waits_ = false;
    double waited_ = 0;
    std::exception_ptr error_;
    std::jthread thread_;  // last: begins when all else is there
};

}  // namespace zoetrope
