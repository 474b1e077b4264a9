// A run of the program that takes a second: tiny images, a tiny mixture, two threads.
#pragma once

#include <string>
#include <vector>

#include "engine/base/rng.h"
#include "tests/data_files.h"
#include "tests/process.h"

namespace tessera {

// 200 training and 40 test images of 8 x 8 pixels whose brightness tells the class.
struct TinySet {
  testing::TempFolder folder;

  TinySet() {
    for (const auto& [prefix, count] : {std::pair{"train", 200u}, std::pair{"t10k", 40u}}) {
      testing::ByteVector images = testing::idx_header({count, 8, 8}), labels = testing::idx_header({count});
      const Draw draw{.seed = 4};
      for (uint32_t i = 0; i < count; ++i) {
        labels.push_back(uint8_t(i % 10));
        for (uint32_t p = 0; p < 64; ++p)
          images.push_back(uint8_t(20 * (i % 10) + draw.below(40, i * 64 + p)));
      }
      folder.write(std::string(prefix) + "-images-idx3-ubyte", images);
      folder.write(std::string(prefix) + "-labels-idx1-ubyte", labels);
    }
  }
};

inline std::vector<std::string> train_command(const TinySet& set, const std::string& out,
                                              const std::vector<std::string>& more = {}) {
  std::vector<std::string> words{
      "train", "--model", "vit_small_image_28", "--data", set.folder.path(), "--out", out, "--quiet"};
  for (const char* setting :
       {"model.image_size=8", "model.dim=16", "model.depth=2", "model.heads=2", "model.moe.blocks=every-2",
        "model.moe.experts=3", "model.drop_path=0.2", "data.padding=1", "data.flip=true", "data.workers=2",
        "train.batch=16", "train.epochs=3", "train.threads=2", "train.micro_batch=3",
        "train.checkpoint_every=1"}) {
    words.push_back("--set");
    words.push_back(setting);
  }
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

}  // namespace tessera
