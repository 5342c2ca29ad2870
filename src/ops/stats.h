// What operators cost and where a slow path was taken: seconds and operations per operator, and
// shapes that no fast kernel took. Counted per process while a Collection lives; free otherwise but
// for a branch. Safe from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace zoetrope::ops {

struct OperatorStats {
    std::int64_t calls = 0;
    double seconds = 0;
    double flop = 0;
};

// Collects from its construction on; one at a time (internal error otherwise).
class Collection {
public:
    Collection();
    ~Collection();
    Collection(const Collection&) = delete;
    Collection& operator=(const Collection&) = delete;

    std::map<std::string, OperatorStats> operators() const;
    // "attention bf16 [1, 512, 5, 12] head size 12: no kernel" -> times met
    std::map<std::string, std::int64_t> fallbacks() const;
    void clear();
};

// Times the enclosing scope as one call of an operator, where a Collection lives. Nested scopes
// count to the inner operator alone.
class OperatorScope {
public:
    explicit OperatorScope(const char* name, double flop = 0);
    ~OperatorScope();
    OperatorScope(const OperatorScope&) = delete;
    OperatorScope& operator=(const OperatorScope&) = delete;

private:
    const char* name_;
    double flop_;
    OperatorScope* outer_ = nullptr;
    double started_ = 0;
    double inner_seconds_ = 0;
    bool active_ = false;
};

void count_fallback(std::string_view what);

}  // namespace zoetrope::ops
