#include "cli/contact_sheet.h"

#include <algorithm>
#include <cmath>

#include "cli/output.h"
#include "engine/base/check.h"
#include "engine/io/atomic_file.h"
#include "engine/io/printable.h"

namespace tessera::cli {
namespace {

constexpr int64_t kColumns = 8, kSamples = 32, kGap = 2, kLeastSide = 96;

std::string label_of(const Batch& batch, int64_t i, const Dataset& data) {
  const auto K = size_t(data.classes());
  if (batch.soft_targets.empty()) return printable(data.class_names[size_t(batch.labels[size_t(i)])]);
  std::string words;
  for (size_t k = 0; k < K; ++k)
    if (const float share = batch.soft_targets[size_t(i) * K + k]; share > 0)
      words += (words.empty() ? "" : " + ") + fixed(double(share), 2) + " " + printable(data.class_names[k]);
  return words;
}

}  // namespace

ContactSheet::ContactSheet(const Batch& batch, const Shape& shape, const Dataset& data,
                           const Normalization& norm) {
  TESSERA_CHECK_AS(Exit::usage, shape.rank() == 3 && norm.mean.size() == size_t(shape[0]),
                   "a contact sheet shows images, not samples ", shape);
  const int64_t count = std::min(kSamples, batch.size()), H = shape[1], W = shape[2];
  // Small images are enlarged.
  zoom_ = std::max<int64_t>(1, kLeastSide / std::max(H, W));
  const int64_t rows = (count + kColumns - 1) / kColumns, columns = std::min(kColumns, count);
  sheet_ = {shape[0], rows * (H * zoom_ + kGap) + kGap, columns * (W * zoom_ + kGap) + kGap, {}};
  sheet_.pixels.assign(size_t(sheet_.channels * sheet_.height * sheet_.width), 255);
  for (int64_t i = 0; i < count; ++i) {
    place(batch.inputs.data() + i * shape.count(), norm, i, H, W);
    labels_.push_back(label_of(batch, i, data));
  }
}

void ContactSheet::place(const float* sample, const Normalization& norm, int64_t number, int64_t H,
                         int64_t W) {
  const int64_t top = kGap + number / kColumns * (H * zoom_ + kGap),
                left = kGap + number % kColumns * (W * zoom_ + kGap);
  for (int64_t c = 0; c < sheet_.channels; ++c)
    for (int64_t y = 0; y < H * zoom_; ++y)
      for (int64_t x = 0; x < W * zoom_; ++x) {
        const float value = sample[(c * H + y / zoom_) * W + x / zoom_];
        const float pixel = value * norm.std[size_t(c)] + norm.mean[size_t(c)];
        sheet_.pixels[size_t((c * sheet_.height + top + y) * sheet_.width + left + x)] =
            uint8_t(std::lround(std::clamp(pixel, 0.0f, 1.0f) * 255));
      }
}

void ContactSheet::write(const std::string& file) const {
  const std::vector<uint8_t> png = encode_png(sheet_);
  write_file_atomically(file, {reinterpret_cast<const char*>(png.data()), png.size()});
}

void ContactSheet::print() const {
  const size_t columns = std::min(labels_.size(), size_t(kColumns));
  Table table(std::string(columns, 'l'));
  for (size_t i = 0; i < labels_.size(); i += columns) {
    std::vector<std::string> row(columns);
    std::copy_n(labels_.begin() + int64_t(i), std::min(columns, labels_.size() - i), row.begin());
    table.add(row);
  }
  table.print();
}

}  // namespace tessera::cli
