// Adapters in the engine's transformers.
#include "base/timer.h"
#include "engine/parts.h"

#include <c10/core/InferenceMode.h>

namespace zoetrope {

std::vector<AdapterFile> Engine::Parts::find_adapters(
    std::span<const AdapterChoice> choices) const {
    return find_adapter_files(
        choices, options.lora_registry,
        adapter_base(model.root.string(), dit_config, model.transformer_2.has_value()),
        options.lora_allow_unmatched);
}

void Engine::Parts::apply_adapters(bool low_noise) {
    const c10::InferenceMode inference;
    Residency& residency = *(low_noise ? transformer_2 : transformer)->residency;
    const AdapterExpert own = low_noise ? AdapterExpert::low : AdapterExpert::high;
    const Timer timer;
    std::vector<AdapterUse> uses;
    std::vector<Report::Adapter> reports;
    for (const AdapterFile& file : adapters) {
        if (file.expert != AdapterExpert::both && file.expert != own) continue;
        Adapter adapter = open_adapter(file.file, residency.params());
        check_matches(adapter, options.lora_allow_unmatched);
        reports.push_back(
            {.name = file.name,
             .file = file.file.string(),
             .expert = std::string(name_of(model.transformer_2 ? own : AdapterExpert::both)),
             .strength = file.strength,
             .rank = adapter.rank,
             .targets = static_cast<std::int64_t>(adapter.deltas.size())});
        uses.push_back({std::move(adapter), file.strength});
    }
    const AdapterSetOptions how{
        .mode = adapter_mode, .device = dit_compute.device, .dtype = dit_compute.compute_dtype};
    residency.set_adapters(
        uses.empty() ? nullptr : std::make_shared<const AdapterSet>(residency.params(), uses, how));
    const double seconds = timer.seconds();
    for (Report::Adapter& report : reports)
        report.seconds = seconds / static_cast<double>(reports.size());
    adapter_reports[low_noise ? 1 : 0] = std::move(reports);
}

void Engine::set_adapters(const std::vector<AdapterChoice>& choices) {
    Parts& parts = *parts_;
    const auto apply = [&parts] {
        if (parts.transformer) parts.apply_adapters(false);
        if (parts.transformer_2) parts.apply_adapters(true);
    };
    const auto before = std::exchange(parts.adapters, parts.find_adapters(choices));
    try {
        apply();
    } catch (...) {
        parts.adapters = before;
        apply();
        throw;
    }
}

const std::vector<AdapterFile>& Engine::adapters() const { return parts_->adapters; }

std::string Engine::lora_mode() const { return std::string(name_of(parts_->adapter_mode)); }

std::vector<Report::Adapter> Engine::adapter_reports() const {
    std::vector<Report::Adapter> all = parts_->adapter_reports[0];
    const auto& low = parts_->adapter_reports[1];
    all.insert(all.end(), low.begin(), low.end());
    return all;
}

}  // namespace zoetrope
