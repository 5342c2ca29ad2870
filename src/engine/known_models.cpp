#include "engine/known_models.h"

#include <algorithm>
#include <cctype>

namespace zoetrope {
namespace {

// sample_neg_prompt of the Wan repositories' shared_config.py: colours too bright, overexposed,
// still, blurred details, subtitles, style, work, painting, and so on. The models were trained on
// captions in Chinese.
constexpr std::string_view kNegative =
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的"
    "，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走";
constexpr std::string_view kCameraShakes = "镜头晃动，";           // first for image to video
constexpr std::string_view kShotChanges = "镜头切换，镜头晃动，";  // for first and last frame

constexpr Task kText[] = {Task::t2v, Task::t2i, Task::v2v};
constexpr Task kImage[] = {Task::i2v};
constexpr Task kImages[] = {Task::i2v, Task::flf2v};
constexpr Task kTextOrImage[] = {Task::t2v, Task::t2i, Task::i2v};
constexpr Task kVace[] = {Task::vace, Task::t2v, Task::t2i};
constexpr Task kAnimate[] = {Task::animate, Task::replace};

constexpr std::string_view kVaceClass = "WanVACETransformer3DModel";
constexpr std::string_view kAnimateClass = "WanAnimateTransformer3DModel";

// Where two rows have the same sizes, the one with a word for the path comes first.
constexpr KnownModel kModels[] = {
    {.name = "Wan2.1 T2V 1.3B",
     .family = "Wan2.1",
     .tasks = kText,
     .guidance_scale = 6,  // 6 and 8: the README of Wan2.1, for this model
     .flow_shift = 8,
     .dim = 1536,
     .layers = 30,
     .in_channels = 16},
    {.name = "Wan2.2 T2V A14B",
     .family = "Wan2.2",
     .tasks = kText,
     .height = 720,
     .width = 1280,
     .num_inference_steps = 40,
     .guidance_scale = 4,
     .guidance_scale_2 = 3,
     .flow_shift = 12,
     .boundary_ratio = 0.875,
     .dim = 5120,
     .layers = 40,
     .in_channels = 16,
     .two_experts = true},
    {.name = "Wan2.1 T2V 14B",
     .family = "Wan2.1",
     .tasks = kText,
     .height = 720,
     .width = 1280,
     .dim = 5120,
     .layers = 40,
     .in_channels = 16},
    {.name = "Wan2.1 Fun InP 14B",
     .family = "Wan2.1",
     .tasks = kImages,
     .guidance_scale = 6,
     .flow_shift = 3,
     .dim = 5120,
     .layers = 40,
     .in_channels = 36,
     .image_encoder = true,
     .in_path = "fun"},
    {.name = "Wan2.1 I2V 14B 720P",
     .family = "Wan2.1",
     .tasks = kImage,
     .height = 720,
     .width = 1280,
     .num_inference_steps = 40,
     .negative_prefix = kCameraShakes,
     .dim = 5120,
     .layers = 40,
     .in_channels = 36,
     .image_encoder = true,
     .in_path = "720p"},
    {.name = "Wan2.1 I2V 14B 480P",
     .family = "Wan2.1",
     .tasks = kImage,
     .num_inference_steps = 40,
     .flow_shift = 3,
     .negative_prefix = kCameraShakes,
     .dim = 5120,
     .layers = 40,
     .in_channels = 36,
     .image_encoder = true},
    {.name = "Wan2.1 FLF2V 14B 720P",
     .family = "Wan2.1",
     .tasks = kImages,
     .height = 720,
     .width = 1280,
     .flow_shift = 16,
     .negative_prefix = kShotChanges,
     .dim = 5120,
     .layers = 40,
     .in_channels = 36,
     .image_encoder = true,
     .last_image = true},
    {.name = "Wan2.1 VACE 1.3B",
     .family = "Wan2.1",
     .tasks = kVace,
     .flow_shift = 16,
     .dim = 1536,
     .layers = 30,
     .in_channels = 16,
     .transformer = kVaceClass},
    {.name = "Wan2.1 VACE 14B",
     .family = "Wan2.1",
     .tasks = kVace,
     .height = 720,
     .width = 1280,
     .flow_shift = 16,
     .dim = 5120,
     .layers = 40,
     .in_channels = 16,
     .transformer = kVaceClass},
    {.name = "Wan2.1 Fun InP 1.3B",
     .family = "Wan2.1",
     .tasks = kImages,
     .guidance_scale = 6,
     .flow_shift = 3,
     .dim = 1536,
     .layers = 30,
     .in_channels = 36,
     .image_encoder = true},
    {.name = "Wan2.1 Fun Control 1.3B",
     .family = "Wan2.1",
     .tasks = {},
     .guidance_scale = 6,
     .flow_shift = 3,
     .dim = 1536,
     .layers = 30,
     .in_channels = 48,
     .image_encoder = true},
    {.name = "Wan2.1 Fun Control 14B",
     .family = "Wan2.1",
     .tasks = {},
     .guidance_scale = 6,
     .flow_shift = 3,
     .dim = 5120,
     .layers = 40,
     .in_channels = 48,
     .image_encoder = true},
    {.name = "Wan2.2 I2V A14B",
     .family = "Wan2.2",
     .tasks = kImages,
     .height = 720,
     .width = 1280,
     .num_inference_steps = 40,
     .guidance_scale = 3.5,
     .guidance_scale_2 = 3.5,
     .boundary_ratio = 0.9,
     .dim = 5120,
     .layers = 40,
     .in_channels = 36,
     .two_experts = true},
    {.name = "Wan2.2 TI2V 5B",
     .family = "Wan2.2",
     .tasks = kTextOrImage,
     .height = 704,
     .width = 1280,
     .num_frames = 121,
     .fps = 24,
     .dim = 3072,
     .layers = 30,
     .in_channels = 48},
    {.name = "Wan2.2 Animate 14B",
     .family = "Wan2.2",
     .tasks = kAnimate,
     .height = 720,
     .width = 1280,
     .num_frames = 77,
     .fps = 30,
     .num_inference_steps = 20,
     .guidance_scale = 1,
     .dim = 5120,
     .layers = 40,
     .in_channels = 36,
     .transformer = kAnimateClass,
     .image_encoder = true},
};

std::int64_t integer_of(const nlohmann::json& config, const char* key, std::int64_t otherwise) {
    const auto found = config.find(key);
    return found != config.end() && found->is_number_integer() ? found->get<std::int64_t>()
                                                               : otherwise;
}

bool is_set(const nlohmann::json& config, const char* key) {
    const auto found = config.find(key);
    return found != config.end() && !found->is_null();
}

// The last words of a path, lower case: a repository's name is up to three folders above its
// snapshot's files.
std::string words_of(const std::filesystem::path& path) {
    std::filesystem::path part = path.lexically_normal();
    std::string words;
    for (int i = 0; i < 4 && part.has_relative_path(); ++i, part = part.parent_path())
        words += part.filename().string() + "/";
    std::transform(words.begin(), words.end(), words.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return words;
}

}  // namespace

std::string KnownModel::negative_prompt() const {
    return std::string(negative_prefix) + std::string(kNegative);
}

std::string KnownModel::repository() const {
    std::string text(name);
    std::replace(text.begin(), text.end(), ' ', '-');
    return text;
}

std::span<const KnownModel> known_models() { return kModels; }

const KnownModel* find_known(const nlohmann::json& config, bool two_experts,
                             const std::filesystem::path& path) {
    if (!config.is_object()) return nullptr;
    const std::string words = words_of(path);
    const auto type = config.value("_class_name", nlohmann::json("WanTransformer3DModel"));
    const std::int64_t dim = integer_of(config, "num_attention_heads", 0) *
                             integer_of(config, "attention_head_dim", 128);
    const auto* found = std::find_if(std::begin(kModels), std::end(kModels), [&](const auto& row) {
        return type == row.transformer && dim == row.dim &&
               integer_of(config, "num_layers", 0) == row.layers &&
               integer_of(config, "in_channels", 0) == row.in_channels &&
               is_set(config, "image_dim") == row.image_encoder &&
               is_set(config, "pos_embed_seq_len") == row.last_image &&
               two_experts == row.two_experts &&
               (row.in_path.empty() || words.find(row.in_path) != std::string::npos);
    });
    return found == std::end(kModels) ? nullptr : found;
}

const KnownModel* find_known(const ModelFolder& model) {
    return find_known(model.transformer_config, model.transformer_2.has_value(), model.root);
}

}  // namespace zoetrope
