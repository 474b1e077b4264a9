#include "data/survey.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "data/image_set.h"
#include "engine/base/check.h"
#include "engine/base/parallel.h"

namespace tessera {
namespace {

constexpr size_t kErrorsShown = 20;

struct ImageFacts {
  int64_t height = 0, width = 0;
  std::vector<double> sums, squares;  // per channel, of the mean pixel
  std::optional<std::string> error;
};

ImageFacts facts_of(const ImageSet& images, int64_t index) {
  ImageFacts facts;
  Image own;
  ImageView image;
  try {
    image = images.image(index, own, {});
  } catch (const Error& error) {
    facts.error = error.what();
    return facts;
  }
  facts.height = image.height, facts.width = image.width;
  const int64_t plane = image.height * image.width;
  for (int64_t c = 0; c < image.channels; ++c) {
    uint64_t sum = 0, squares = 0;
    for (int64_t i = 0; i < plane; ++i) {
      const uint64_t v = image.pixels[c * plane + i];
      sum += v, squares += v * v;
    }
    facts.sums.push_back(double(sum) / double(plane) / 255);
    facts.squares.push_back(double(squares) / double(plane) / (255.0 * 255.0));
  }
  return facts;
}

void survey_images(const ImageSet& images, Survey& found) {
  std::vector<ImageFacts> all(size_t(found.read));
  parallel_for(found.read, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) all[size_t(i)] = facts_of(images, i);
  });
  const auto channels = size_t(images.shape()[0]);
  std::vector<double> sums(channels), squares(channels);
  found.least_height = found.least_width = INT64_MAX;
  for (const ImageFacts& facts : all) {
    if (facts.error) {
      ++found.unreadable;
      if (found.errors.size() < kErrorsShown) found.errors.push_back(*facts.error);
      continue;
    }
    found.least_height = std::min(found.least_height, facts.height);
    found.most_height = std::max(found.most_height, facts.height);
    found.least_width = std::min(found.least_width, facts.width);
    found.most_width = std::max(found.most_width, facts.width);
    for (size_t c = 0; c < channels; ++c) sums[c] += facts.sums[c], squares[c] += facts.squares[c];
  }
  const double n = double(found.read - found.unreadable);
  if (n == 0) {
    found.least_height = found.least_width = 0;
    return;
  }
  for (size_t c = 0; c < channels; ++c) {
    found.mean.push_back(sums[c] / n);
    found.std.push_back(std::sqrt(std::max(0.0, squares[c] / n - found.mean[c] * found.mean[c])));
  }
}

}  // namespace

Survey survey(const Dataset& data, int64_t limit) {
  Survey found;
  found.read = limit > 0 ? std::min(limit, data.count()) : data.count();
  std::vector<int64_t> counts(size_t(data.classes()));
  for (const int32_t label : data.labels) ++counts[size_t(label)];
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  found.smallest_class = *least, found.largest_class = *most;
  if (const auto* images = dynamic_cast<const ImageSet*>(data.samples.get())) survey_images(*images, found);
  return found;
}

}  // namespace tessera
