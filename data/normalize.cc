#include "data/normalize.h"

#include "engine/base/check.h"

namespace tessera {

Normalizer::Normalizer(int64_t channels, const Normalization& normalization) : tables_(size_t(channels)) {
  const auto& [mean, std] = normalization;
  TESSERA_CHECK_AS(Exit::usage, mean.size() == tables_.size() && std.size() == tables_.size(),
                   "normalisation: ", mean.size(), " means and ", std.size(),
                   " standard deviations for images of ", channels, " channels");
  for (size_t c = 0; c < tables_.size(); ++c) {
    TESSERA_CHECK_AS(Exit::usage, std[c] > 0, "normalisation: the standard deviation of channel ", c, " is ",
                     std[c], ", expected above 0");
    for (int byte = 0; byte < 256; ++byte) {
      tables_[c][byte] = float((byte / 255.0 - double(mean[c])) / double(std[c]));
    }
  }
}

void Normalizer::apply(const ImageView& image, const CropFlip& move, float* out) const {
  look_through<float>(image, move, tables_, out);
}

}  // namespace tessera
