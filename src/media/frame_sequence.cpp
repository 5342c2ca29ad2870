#include "media/frame_sequence.h"

#include "base/error.h"
#include "media/frame_feed.h"
#include "media/reader.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

namespace zoetrope {

class FrameSequence::Source {
public:
    virtual ~Source() = default;
    virtual int size() const = 0;
    virtual const Frame& at(int i) = 0;  // 0 <= i < size()
    virtual std::int64_t most_bytes() const = 0;
    virtual int times_reopened() const { return 0; }
    virtual int width() { return at(0).width; }
    virtual int height() { return at(0).height; }
};

namespace {

std::int64_t bytes_of(const Frame& frame) { return static_cast<std::int64_t>(frame.rgb.size()); }

class FramesInMemory : public FrameSequence::Source {
public:
    explicit FramesInMemory(std::vector<Frame> frames) : frames_(std::move(frames)) {}
    int size() const override { return static_cast<int>(frames_.size()); }
    const Frame& at(int i) override { return frames_[static_cast<std::size_t>(i)]; }
    std::int64_t most_bytes() const override {
        std::int64_t sum = 0;
        for (const Frame& frame : frames_) sum += bytes_of(frame);
        return sum;
    }

private:
    std::vector<Frame> frames_;
};

class FramesOfFeed : public FrameSequence::Source {
public:
    FramesOfFeed(std::shared_ptr<FrameFeed> feed, int track)
        : feed_(std::move(feed)), track_(track) {}
    int size() const override { return feed_->size(); }
    const Frame& at(int i) override { return feed_->at(track_, i); }
    std::int64_t most_bytes() const override { return feed_->most_bytes(); }

private:
    std::shared_ptr<FrameFeed> feed_;
    int track_;
};

class FramesOfFile : public FrameSequence::Source {
public:
    FramesOfFile(std::filesystem::path path, const SequenceOptions& options)
        : path_(std::move(path)) {
        VideoReader reader(path_);
        width_ = reader.info().width;
        height_ = reader.info().height;
        while ((options.most_frames == 0 || size_ < options.most_frames) && reader.skip()) ++size_;
        ZT_CHECK(reader.damage().empty(), io, "{} breaks off after {} frames: {}", path_.string(),
                 size_, reader.damage());
        const std::int64_t fit = options.window_bytes / bytes_of(Frame(width_, height_));
        window_size_ =
            static_cast<int>(std::clamp<std::int64_t>(fit, 1, std::max(options.window_frames, 1)));
    }

    int size() const override { return size_; }
    int width() override { return width_; }
    int height() override { return height_; }
    int times_reopened() const override { return reopened_; }
    std::int64_t most_bytes() const override {
        return std::min(size_, window_size_) * bytes_of(Frame(width_, height_));
    }

    const Frame& at(int i) override {
        if (reader_ && i < first_) {
            ++reopened_;
            reader_.reset();
        }
        if (!reader_) {
            window_.clear();
            first_ = 0;
            reader_.emplace(path_);
        }
        while (first_ + static_cast<int>(window_.size()) <= i) advance(i);
        return window_[static_cast<std::size_t>(i - first_)];
    }

private:
    // One frame further on the way to frame i.
    void advance(int i) {
        const int next = first_ + static_cast<int>(window_.size());
        const auto changed = [&] {
            reader_.reset();
            fail(ErrorKind::io, "{} has no frame {} any more: it had {} when it was opened",
                 path_.string(), next, size_);
        };
        if (next + window_size_ <= i) {  // it would have left the window before frame i is there
            if (!reader_->skip()) changed();
            window_.clear();
            first_ = next + 1;
            return;
        }
        auto frame = reader_->read();
        if (!frame) changed();
        window_.push_back(std::move(frame->frame));
        if (static_cast<int>(window_.size()) > window_size_) {
            window_.pop_front();
            ++first_;
        }
    }

    std::filesystem::path path_;
    int size_ = 0, width_ = 0, height_ = 0;
    int window_size_ = 1;  // frames
    int reopened_ = 0;
    std::optional<VideoReader> reader_;  // stands behind the window
    std::deque<Frame> window_;
    int first_ = 0;  // number of window_.front()
};

}  // namespace

FrameSequence::FrameSequence(std::shared_ptr<Source> source) : source_(std::move(source)) {}

FrameSequence::FrameSequence(std::vector<Frame> frames)
    : source_(std::make_shared<FramesInMemory>(std::move(frames))) {}

FrameSequence::FrameSequence(std::shared_ptr<FrameFeed> feed, int track)
    : source_(std::make_shared<FramesOfFeed>(std::move(feed), track)) {}

FrameSequence FrameSequence::open(const std::filesystem::path& path,
                                  const SequenceOptions& options) {
    return FrameSequence(std::make_shared<FramesOfFile>(path, options));
}

int FrameSequence::size() const { return source_ ? source_->size() : 0; }
int FrameSequence::width() const { return empty() ? 0 : source_->width(); }
int FrameSequence::height() const { return empty() ? 0 : source_->height(); }
std::int64_t FrameSequence::most_bytes() const { return source_ ? source_->most_bytes() : 0; }
int FrameSequence::times_reopened() const { return source_ ? source_->times_reopened() : 0; }

const Frame& FrameSequence::at(int i) const {
    ZT_CHECK(i >= 0 && i < size(), internal, "frame {} of a video of {} was asked for", i, size());
    return source_->at(i);
}

}  // namespace zoetrope
