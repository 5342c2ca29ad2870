#include "base/progress.h"

#include "base/error.h"

namespace zoetrope {

std::string_view name_of(Stage stage) {
    switch (stage) {
        case Stage::download: return "download";
        case Stage::load: return "load";
        case Stage::encode_text: return "encode_text";
        case Stage::encode_image: return "encode_image";
        case Stage::preprocess: return "preprocess";
        case Stage::denoise: return "denoise";
        case Stage::decode: return "decode";
        case Stage::write: return "write";
    }
    return "unknown";
}

void RunControl::throw_if_stopped() const {
    if (stop.stop_requested()) fail(ErrorKind::cancelled, "stopped as asked; nothing was written");
}

}  // namespace zoetrope
