#include "weights/pickle.h"

#include "base/error.h"
#include "weights/byte_reader.h"
#include "weights/file_text.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace zoetrope::pickle {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{8} << 20;  // a 14B model's pickle has 0.2 MB
constexpr std::size_t kMaxDimensions = 16;               // far above any weight's

// Python names that a pickle may mention.
enum class Global {
    ordered_dict,
    size,
    tensor_v2,
    tensor_v3,
    parameter,
    untyped_storage,
    storage,  // with a dtype
    dtype,
};

struct GlobalRow {
    std::string_view name;
    Global global;
    Dtype dtype = Dtype::u8;
};
constexpr std::array kGlobals = {
    GlobalRow{"collections.OrderedDict", Global::ordered_dict},
    GlobalRow{"torch.Size", Global::size},
    GlobalRow{"torch._utils._rebuild_tensor_v2", Global::tensor_v2},
    GlobalRow{"torch._utils._rebuild_tensor_v3", Global::tensor_v3},
    GlobalRow{"torch._utils._rebuild_parameter", Global::parameter},
    GlobalRow{"torch.storage.UntypedStorage", Global::untyped_storage},
    GlobalRow{"torch.UntypedStorage", Global::untyped_storage},
    GlobalRow{"torch.BoolStorage", Global::storage, Dtype::boolean},
    GlobalRow{"torch.ByteStorage", Global::storage, Dtype::u8},
    GlobalRow{"torch.CharStorage", Global::storage, Dtype::i8},
    GlobalRow{"torch.ShortStorage", Global::storage, Dtype::i16},
    GlobalRow{"torch.IntStorage", Global::storage, Dtype::i32},
    GlobalRow{"torch.LongStorage", Global::storage, Dtype::i64},
    GlobalRow{"torch.HalfStorage", Global::storage, Dtype::f16},
    GlobalRow{"torch.BFloat16Storage", Global::storage, Dtype::bf16},
    GlobalRow{"torch.FloatStorage", Global::storage, Dtype::f32},
    GlobalRow{"torch.DoubleStorage", Global::storage, Dtype::f64},
    GlobalRow{"torch.bool", Global::dtype, Dtype::boolean},
    GlobalRow{"torch.uint8", Global::dtype, Dtype::u8},
    GlobalRow{"torch.int8", Global::dtype, Dtype::i8},
    GlobalRow{"torch.int16", Global::dtype, Dtype::i16},
    GlobalRow{"torch.uint16", Global::dtype, Dtype::u16},
    GlobalRow{"torch.int32", Global::dtype, Dtype::i32},
    GlobalRow{"torch.uint32", Global::dtype, Dtype::u32},
    GlobalRow{"torch.int64", Global::dtype, Dtype::i64},
    GlobalRow{"torch.uint64", Global::dtype, Dtype::u64},
    GlobalRow{"torch.float8_e5m2", Global::dtype, Dtype::f8_e5m2},
    GlobalRow{"torch.float8_e4m3fn", Global::dtype, Dtype::f8_e4m3},
    GlobalRow{"torch.float16", Global::dtype, Dtype::f16},
    GlobalRow{"torch.bfloat16", Global::dtype, Dtype::bf16},
    GlobalRow{"torch.float32", Global::dtype, Dtype::f32},
    GlobalRow{"torch.float64", Global::dtype, Dtype::f64},
};

// Keys under which training programs keep the dict of tensors.
constexpr std::array<std::string_view, 5> kWrappers = {"state_dict", "model", "model_state",
                                                       "model_state_dict", "module"};

// Operations of Python's Lib/pickle.py, by its names.
enum Operation : std::uint8_t {
    MARK = '(',
    STOP = '.',
    POP = '0',
    BININT = 'J',
    BININT1 = 'K',
    BININT2 = 'M',
    NONE = 'N',
    BINPERSID = 'Q',
    REDUCE = 'R',
    SHORT_BINSTRING = 'U',
    BINFLOAT = 'G',
    BINUNICODE = 'X',
    EMPTY_LIST = ']',
    APPEND = 'a',
    BUILD = 'b',
    GLOBAL = 'c',
    APPENDS = 'e',
    BINGET = 'h',
    LONG_BINGET = 'j',
    BINPUT = 'q',
    LONG_BINPUT = 'r',
    SETITEM = 's',
    TUPLE = 't',
    SETITEMS = 'u',
    EMPTY_DICT = '}',
    EMPTY_TUPLE = ')',
    PROTO = 0x80,
    TUPLE1 = 0x85,
    TUPLE2 = 0x86,
    TUPLE3 = 0x87,
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    LONG1 = 0x8a,
    SHORT_BINUNICODE = 0x8c,
    STACK_GLOBAL = 0x93,
    MEMOIZE = 0x94,
    FRAME = 0x95,
};

enum class Kind { other, integer, text, tuple, list, dict, global, storage, tensor };

std::string_view name_of(Kind kind) {
    constexpr std::array<std::string_view, 9> kNames = {
        "another value", "a whole number", "a text",    "a tuple", "a list",
        "a dict",        "a name",         "a storage", "a tensor"};
    return kNames[static_cast<std::size_t>(kind)];
}

// A Python value. Cheap to copy: what has parts is kept once and named by its index.
struct Value {
    Kind kind = Kind::other;
    std::int64_t integer = 0;
    std::string_view text;
    std::size_t index = 0;  // into parts (tuple, list, dict), kGlobals, storages or tensors
};

class Machine {
public:
    Machine(std::span<const std::byte> bytes, std::string_view source)
        : reader_(bytes, source), source_(source) {}

    std::vector<Tensor> run() {
        while (!stopped_) step();
        return tensors_of(pop());
    }

private:
    template <typename... Args>
    [[noreturn]] void broken(fmt::format_string<Args...> format, Args&&... args) const {
        fail(ErrorKind::io, "{}: the pickle is broken before its byte {}: {}", source_,
             reader_.position(), fmt::format(format, std::forward<Args>(args)...));
    }

    // --- the stack ---

    void push(Value value) { stack_.push_back(value); }
    void push_parts(Kind kind, std::vector<Value> parts) {
        parts_.push_back(std::move(parts));
        push({.kind = kind, .integer = 0, .text = {}, .index = parts_.size() - 1});
    }
    // Values above the last mark, which they never take.
    std::size_t height() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
    Value pop() {
        if (height() == 0) broken("it takes a value from an empty stack");
        const Value value = stack_.back();
        stack_.pop_back();
        return value;
    }
    Value& top() {
        if (height() == 0) broken("it takes a value from an empty stack");
        return stack_.back();
    }
    std::vector<Value> pop_many(std::size_t count) {
        if (height() < count) broken("it takes {} values from a stack of {}", count, height());
        std::vector<Value> values(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
        stack_.resize(stack_.size() - count);
        return values;
    }
    std::vector<Value> pop_to_mark() {
        if (marks_.empty()) broken("it asks for a mark that was not set");
        std::vector<Value> values = pop_many(height());
        marks_.pop_back();
        return values;
    }

    // --- values ---

    const std::vector<Value>& expect_parts(const Value& value, Kind kind, std::string_view what) {
        if (value.kind != kind)
            broken("{} is {}, wanted {}", what, name_of(value.kind), name_of(kind));
        return parts_[value.index];
    }
    std::int64_t expect_size(const Value& value, std::string_view what) {
        if (value.kind != Kind::integer || value.integer < 0)
            broken("{} is not a whole number of at least 0", what);
        return value.integer;
    }
    std::vector<std::int64_t> expect_sizes(const Value& value, std::string_view what) {
        const auto& parts = expect_parts(value, Kind::tuple, what);
        if (parts.size() > kMaxDimensions)
            broken("{} has more than {} dimensions", what, kMaxDimensions);
        std::vector<std::int64_t> sizes;
        for (const Value& part : parts) sizes.push_back(expect_size(part, what));
        return sizes;
    }

    // --- operations ---

    void step();
    void reduce();
    void build_tensor(const std::vector<Value>& arguments, bool v3);
    void load_storage();
    void load_global(std::string_view module, std::string_view name);
    std::string_view line();
    std::int64_t long_integer();
    void put(std::uint64_t key) { memo_[key] = top(); }
    void get(std::uint64_t key) {
        const auto found = memo_.find(key);
        if (found == memo_.end()) broken("it asks for the remembered value {}, which is none", key);
        push(found->second);
    }
    void append(std::vector<Value> values) {
        expect_parts(top(), Kind::list, "what is appended to");
        auto& parts = parts_[top().index];
        parts.insert(parts.end(), values.begin(), values.end());
    }
    void set_items(std::vector<Value> values) {
        expect_parts(top(), Kind::dict, "what is given items");
        if (values.size() % 2 != 0) broken("a dict is given a key without a value");
        auto& parts = parts_[top().index];
        parts.insert(parts.end(), values.begin(), values.end());
    }

    // --- the result ---

    std::optional<Value> wrapped(const std::vector<Value>& dict) const;
    bool holds_tensors(const std::vector<Value>& dict) const;
    std::vector<Tensor> tensors_of(const Value& result);

    ByteReader reader_;
    std::string_view source_;
    bool stopped_ = false;
    std::vector<Value> stack_;
    std::vector<std::size_t> marks_;
    std::unordered_map<std::uint64_t, Value> memo_;
    std::vector<std::vector<Value>> parts_;
    std::vector<Storage> storages_;
    std::vector<Tensor> tensors_;
};

void Machine::step() {
    const auto operation = reader_.number<std::uint8_t>();
    switch (operation) {
        case PROTO: {
            const auto protocol = reader_.number<std::uint8_t>();
            if (protocol < 2 || protocol > 5) broken("its protocol is {}", protocol);
            break;
        }
        case FRAME: reader_.skip(8); break;
        case STOP: stopped_ = true; break;
        case MARK: marks_.push_back(stack_.size()); break;
        case POP: pop(); break;
        case NONE:
        case NEWTRUE:
        case NEWFALSE: push({}); break;
        case BINFLOAT:
            reader_.skip(8);
            push({});
            break;
        case BININT: push({Kind::integer, reader_.number<std::int32_t>(), {}, 0}); break;
        case BININT1: push({Kind::integer, reader_.number<std::uint8_t>(), {}, 0}); break;
        case BININT2: push({Kind::integer, reader_.number<std::uint16_t>(), {}, 0}); break;
        case LONG1: push({Kind::integer, long_integer(), {}, 0}); break;
        case BINUNICODE:
            push({Kind::text, 0, reader_.text(reader_.number<std::uint32_t>()), 0});
            break;
        case SHORT_BINSTRING:
        case SHORT_BINUNICODE:
            push({Kind::text, 0, reader_.text(reader_.number<std::uint8_t>()), 0});
            break;
        case EMPTY_TUPLE: push_parts(Kind::tuple, {}); break;
        case TUPLE1: push_parts(Kind::tuple, pop_many(1)); break;
        case TUPLE2: push_parts(Kind::tuple, pop_many(2)); break;
        case TUPLE3: push_parts(Kind::tuple, pop_many(3)); break;
        case TUPLE: push_parts(Kind::tuple, pop_to_mark()); break;
        case EMPTY_LIST: push_parts(Kind::list, {}); break;
        case EMPTY_DICT: push_parts(Kind::dict, {}); break;
        case APPEND: append(pop_many(1)); break;
        case APPENDS: append(pop_to_mark()); break;
        case SETITEM: set_items(pop_many(2)); break;
        case SETITEMS: set_items(pop_to_mark()); break;
        case BINPUT: put(reader_.number<std::uint8_t>()); break;
        case LONG_BINPUT: put(reader_.number<std::uint32_t>()); break;
        case MEMOIZE: put(memo_.size()); break;
        case BINGET: get(reader_.number<std::uint8_t>()); break;
        case LONG_BINGET: get(reader_.number<std::uint32_t>()); break;
        case GLOBAL: {
            const std::string_view module = line();
            load_global(module, line());
            break;
        }
        case STACK_GLOBAL: {
            const Value name = pop(), module = pop();
            if (name.kind != Kind::text || module.kind != Kind::text)
                broken("a name is not made of two texts");
            load_global(module.text, name.text);
            break;
        }
        case REDUCE: reduce(); break;
        case BINPERSID: load_storage(); break;
        case BUILD:
            // The attributes of a dict (torch's _metadata); nothing that a tensor depends on.
            pop();
            expect_parts(top(), Kind::dict, "what is given a state");
            break;
        default:
            fail(ErrorKind::unsupported,
                 "{}: the pickle has the operation 0x{:02x} at byte {}, which a file of tensors "
                 "does not need. Nothing was run. Save the tensors alone, as .safetensors",
                 source_, operation, reader_.position() - 1);
    }
}

std::string_view Machine::line() {
    const std::size_t start = reader_.position();
    std::size_t length = 0;
    while (reader_.number<char>() != '\n') ++length;
    reader_.move_to(start);
    const std::string_view text = reader_.text(length);
    reader_.skip(1);
    return text;
}

// Two's complement, little-endian, of any length.
std::int64_t Machine::long_integer() {
    const std::string_view bytes = reader_.text(reader_.number<std::uint8_t>());
    if (bytes.size() > sizeof(std::int64_t))
        broken("it has a whole number of {} bytes", bytes.size());
    if (bytes.empty()) return 0;
    std::uint64_t value = (bytes.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
    for (std::size_t i = bytes.size(); i-- > 0;) {
        value = value << 8 | static_cast<unsigned char>(bytes[i]);
    }
    return static_cast<std::int64_t>(value);
}

void Machine::load_global(std::string_view module, std::string_view name) {
    const auto* row = std::find_if(kGlobals.begin(), kGlobals.end(), [&](const GlobalRow& known) {
        return known.name.size() == module.size() + 1 + name.size() &&
               known.name.starts_with(module) && known.name.ends_with(name) &&
               known.name[module.size()] == '.';
    });
    ZT_CHECK(row != kGlobals.end(), unsupported,
             "{}: the pickle asks Python for '{}.{}', which a file of tensors does not need. "
             "Nothing was run. Save the tensors alone, as .safetensors",
             source_, shown(module), shown(name));
    push({Kind::global, 0, row->name, static_cast<std::size_t>(row - kGlobals.begin())});
}

// A call: the function and its tuple of arguments lie on the stack.
void Machine::reduce() {
    const std::vector<Value> arguments = expect_parts(pop(), Kind::tuple, "a call's arguments");
    const Value function = pop();
    if (function.kind != Kind::global) broken("it calls {}", name_of(function.kind));
    const auto wants = [&](bool enough) {
        if (!enough) broken("{} has {} arguments", function.text, arguments.size());
    };
    switch (kGlobals[function.index].global) {
        case Global::ordered_dict:
            wants(arguments.empty());
            push_parts(Kind::dict, {});
            break;
        case Global::size:
            wants(arguments.size() == 1);
            expect_parts(arguments[0], Kind::tuple, "a torch.Size");
            push(arguments[0]);
            break;
        case Global::parameter:
            wants(arguments.size() == 3);
            if (arguments[0].kind != Kind::tensor) broken("a parameter is made of no tensor");
            push(arguments[0]);
            break;
        case Global::tensor_v2:
            wants(arguments.size() == 6 || arguments.size() == 7);
            build_tensor(arguments, false);
            break;
        case Global::tensor_v3:
            wants(arguments.size() == 7 || arguments.size() == 8);
            build_tensor(arguments, true);
            break;
        default: broken("it calls {}, which is no function", function.text);
    }
}

// (storage, offset, shape, strides, requires_grad, hooks[, dtype][, metadata])
void Machine::build_tensor(const std::vector<Value>& arguments, bool v3) {
    if (arguments[0].kind != Kind::storage) broken("a tensor is made of no storage");
    Tensor tensor;
    tensor.storage = storages_[arguments[0].index];
    tensor.dtype = tensor.storage.dtype;
    if (v3) {
        const Value& dtype = arguments[6];
        if (dtype.kind != Kind::global || kGlobals[dtype.index].global != Global::dtype)
            broken("a tensor's dtype is {}", name_of(dtype.kind));
        tensor.dtype = kGlobals[dtype.index].dtype;
    }
    tensor.offset = expect_size(arguments[1], "a tensor's offset");
    tensor.shape = expect_sizes(arguments[2], "a tensor's shape");
    tensor.strides = expect_sizes(arguments[3], "a tensor's strides");
    if (tensor.shape.size() != tensor.strides.size())
        broken("a tensor has {} dimensions and {} strides", tensor.shape.size(),
               tensor.strides.size());
    tensors_.push_back(std::move(tensor));
    push({Kind::tensor, 0, {}, tensors_.size() - 1});
}

// ("storage", type, key, device, elements): the reference that torch.save writes for a storage.
void Machine::load_storage() {
    const std::vector<Value> id = expect_parts(pop(), Kind::tuple, "a storage's reference");
    const bool right = id.size() == 5 && id[0].kind == Kind::text && id[0].text == "storage" &&
                       id[1].kind == Kind::global && id[2].kind == Kind::text;
    const Global type = right ? kGlobals[id[1].index].global : Global::dtype;
    if (type != Global::storage && type != Global::untyped_storage)
        broken("a storage's reference is not (storage, type, key, device, size)");
    storages_.push_back(
        {id[2].text, kGlobals[id[1].index].dtype, expect_size(id[4], "a storage's size")});
    push({Kind::storage, 0, {}, storages_.size() - 1});
}

// Dicts are lists of key, value, key, value.
bool Machine::holds_tensors(const std::vector<Value>& dict) const {
    for (std::size_t i = 0; i < dict.size(); i += 2) {
        if (dict[i].kind == Kind::text && dict[i + 1].kind == Kind::tensor) return true;
    }
    return false;
}

std::optional<Value> Machine::wrapped(const std::vector<Value>& dict) const {
    for (const std::string_view wrapper : kWrappers) {
        for (std::size_t i = 0; i < dict.size(); i += 2) {
            if (dict[i].kind == Kind::text && dict[i].text == wrapper &&
                dict[i + 1].kind == Kind::dict && holds_tensors(parts_[dict[i + 1].index]))
                return dict[i + 1];
        }
    }
    return std::nullopt;
}

std::vector<Tensor> Machine::tensors_of(const Value& result) {
    ZT_CHECK(result.kind == Kind::dict, unsupported,
             "{}: the file holds {}, wanted a dict of tensors (model.state_dict())", source_,
             name_of(result.kind));
    const std::vector<Value>* dict = &parts_[result.index];
    if (!holds_tensors(*dict)) {
        const std::optional<Value> inner = wrapped(*dict);
        if (!inner) {
            std::vector<std::string> keys;
            for (std::size_t i = 0; i < dict->size() && keys.size() < 10; i += 2)
                keys.push_back((*dict)[i].kind == Kind::text ? shown((*dict)[i].text) : "?");
            fail(ErrorKind::unsupported,
                 "{}: the file's dict has no tensors, and no dict of tensors under {}. It has: {}",
                 source_, fmt::join(kWrappers, ", "), fmt::join(keys, ", "));
        }
        dict = &parts_[inner->index];
    }
    std::vector<Tensor> tensors;
    std::unordered_set<std::string_view> names;
    for (std::size_t i = 0; i < dict->size(); i += 2) {
        const Value& key = (*dict)[i];
        const Value& value = (*dict)[i + 1];
        if (key.kind != Kind::text || value.kind != Kind::tensor) continue;
        check_tensor_name(key.text, source_);
        ZT_CHECK(names.insert(key.text).second, io, "{}: the file's dict has '{}' twice", source_,
                 shown(key.text));
        tensors.push_back(tensors_[value.index]);
        tensors.back().name = key.text;
    }
    return tensors;
}

}  // namespace

std::vector<Tensor> parse(std::span<const std::byte> bytes, std::string_view source) {
    ZT_CHECK(bytes.size() <= kMaxBytes, unsupported,
             "{}: its pickle has {} bytes, at most {} are read", source, bytes.size(), kMaxBytes);
    return Machine(bytes, source).run();
}

}  // namespace zoetrope::pickle
