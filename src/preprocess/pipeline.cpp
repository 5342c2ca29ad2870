#include "preprocess/pipeline.h"

#include "base/error.h"
#include "base/timer.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

namespace zoetrope::preprocess {
namespace {

class Pipeline {
public:
    Pipeline(const PipelineOptions& options, const std::function<bool(std::size_t)>& source,
             const std::vector<PipelineStage>& stages)
        : options_(options),
          source_(source),
          stages_(stages),
          slots_(options.slots),
          progress_(stages.size()) {
        report_.stages.push_back({"source", 0});
        for (const PipelineStage& stage : stages) report_.stages.push_back({stage.name, 0});
        for (std::size_t i = 0; i < options.slots; ++i) free_.push_back(options.slots - 1 - i);
    }

    PipelineReport run() {
        const Timer timer;
        {
            std::vector<std::jthread> helpers;
            for (int i = 1; i < options_.threads; ++i)
                helpers.emplace_back([this] { work_until_done(); });
            work_until_done();
        }
        if (error_) std::rethrow_exception(error_);
        report_.items = produced_;
        report_.seconds = timer.seconds();
        return report_;
    }

private:
    static constexpr std::size_t kSource = static_cast<std::size_t>(-1);

    struct Task {
        std::size_t stage = kSource;
        std::size_t slot = 0;
    };

    struct Slot {
        std::int64_t item = -1;  // number of the item in it; -1: free
        std::size_t stage = 0;   // the stage that it waits for or is in
        bool busy = false;
    };

    struct StageProgress {
        bool running = false;       // stages in order
        std::int64_t next = 0;      // stages in order: the item to come
        std::int64_t released = 0;  // stages that hold back: items that went on
    };

    // The slot of the first item that waits for this stage; stages in order take their next item.
    std::optional<std::size_t> waiting_for(std::size_t stage) const {
        std::optional<std::size_t> best;
        const PipelineStage& spec = stages_[stage];
        if (spec.in_order && progress_[stage].running) return best;
        for (std::size_t i = 0; i < slots_.size(); ++i) {
            const Slot& slot = slots_[i];
            if (slot.item < 0 || slot.busy || slot.stage != stage) continue;
            if (stage > 0 && stages_[stage - 1].released &&
                slot.item >= progress_[stage - 1].released) {
                continue;
            }
            if (spec.in_order && slot.item != progress_[stage].next) continue;
            if (!best || slot.item < slots_[*best].item) best = i;
        }
        return best;
    }

    std::optional<Task> next_task() {
        for (std::size_t stage = stages_.size(); stage-- > 0;) {
            if (const auto slot = waiting_for(stage)) {
                slots_[*slot].busy = true;
                progress_[stage].running = true;
                return Task{stage, *slot};
            }
        }
        if (!ended_ && !source_running_ && !free_.empty()) {
            source_running_ = true;
            const std::size_t slot = free_.back();
            free_.pop_back();
            return Task{kSource, slot};
        }
        return std::nullopt;
    }

    bool done() const {
        return error_ || options_.stop.stop_requested() || (ended_ && finished_ == produced_);
    }

    void work_until_done() {
        std::unique_lock lock(mutex_);
        while (!done()) {
            const auto task = next_task();
            if (!task) {
                const Timer timer;
                // Woken by every finished task; a stop request is seen by whoever still works.
                changed_.wait_for(lock, std::chrono::milliseconds(100));
                report_.idle_seconds += timer.seconds();
                continue;
            }
            lock.unlock();
            const Timer timer;
            bool more = true;
            std::exception_ptr error;
            try {
                if (task->stage == kSource) {
                    more = source_(task->slot);
                } else {
                    stages_[task->stage].work(task->slot);
                }
            } catch (...) {
                error = std::current_exception();
            }
            lock.lock();
            const std::size_t row = task->stage == kSource ? 0 : task->stage + 1;
            report_.stages[row].seconds += timer.seconds();
            try {
                if (error) std::rethrow_exception(error);
                settle(*task, more);
            } catch (...) {
                if (!error_) error_ = std::current_exception();
            }
            changed_.notify_all();
        }
        changed_.notify_all();
    }

    void settle(const Task& task, bool more) {
        if (task.stage == kSource) {
            source_running_ = false;
            if (more) {
                slots_[task.slot] = {produced_++, 0, false};
            } else {
                ended_ = true;
                free_.push_back(task.slot);
                for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
                    if (!progress_[stage].running) let_go(stage);
                }
            }
            return;
        }
        Slot& slot = slots_[task.slot];
        StageProgress& progress = progress_[task.stage];
        progress.running = false;
        if (stages_[task.stage].in_order) ++progress.next;
        slot.busy = false;
        if (++slot.stage == stages_.size()) {
            slot = {};
            free_.push_back(task.slot);
            ++finished_;
        }
        let_go(task.stage);
    }

    // Asks a stage that holds items back how many may go on.
    void let_go(std::size_t stage) {
        if (!stages_[stage].released) return;
        StageProgress& progress = progress_[stage];
        const bool last = ended_ && progress.next == produced_;
        progress.released = stages_[stage].released(progress.next, last);
        ZT_CHECK(!last || progress.released == produced_, internal,
                 "stage {} held back {} frames at the end", stages_[stage].name,
                 produced_ - progress.released);
    }

    const PipelineOptions& options_;
    const std::function<bool(std::size_t)>& source_;
    const std::vector<PipelineStage>& stages_;

    std::mutex mutex_;  // of everything below
    std::condition_variable changed_;
    std::vector<Slot> slots_;
    std::vector<std::size_t> free_;
    std::vector<StageProgress> progress_;
    std::int64_t produced_ = 0;
    std::int64_t finished_ = 0;
    bool ended_ = false;
    bool source_running_ = false;
    std::exception_ptr error_;
    PipelineReport report_;
};

}  // namespace

PipelineReport run_pipeline(const PipelineOptions& options,
                            const std::function<bool(std::size_t)>& source,
                            const std::vector<PipelineStage>& stages) {
    ZT_CHECK(options.threads > 0 && options.slots > 0 && !stages.empty(), internal,
             "a pipeline of {} stages, {} threads and {} slots", stages.size(), options.threads,
             options.slots);
    return Pipeline(options, source, stages).run();
}

}  // namespace zoetrope::preprocess
