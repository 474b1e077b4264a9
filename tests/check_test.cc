// Image folders from the command line: `tessera check`, and a run with every augmentation.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/image_files.h"
#include "tests/process.h"

using namespace tessera;
using namespace tessera::testing;
using nlohmann::json;

namespace {

// Four classes, each of its own grey, in PNG and JPEG files of several sizes.
struct FolderSet {
  TempFolder folder;

  FolderSet() {
    for (int i = 0; i < 48; ++i) {
      const int label = i % 4, height = 9 + i % 5, width = 9 + i % 7;
      ByteVector samples(size_t(3 * height * width), uint8_t(50 * label + i));
      samples[0] = 255;
      const bool png = i % 3 > 0;
      folder.write(
          text(i < 36 ? "train" : "val", "/class ", label, "/", i, png ? ".png" : ".jpg"),
          png ? png_of(height, width, PNG_FORMAT_RGB, samples.data()) : jpeg_of(height, width, 3, samples));
    }
  }
};

std::vector<std::string> words(std::vector<std::string> first, const FolderSet& set,
                               const std::vector<std::string>& more) {
  const std::vector<std::string> settings = {"model.image_size=8",
                                             "model.patch=4",
                                             "model.dim=16",
                                             "model.depth=1",
                                             "model.heads=2",
                                             "model.classes=4",
                                             "data.workers=2",
                                             "data.padding=1",
                                             "data.flip=true",
                                             "data.augment.resized_crop=true",
                                             "data.augment.policy=rand-m9-mstd0.5-inc1",
                                             "data.augment.jitter=0.2",
                                             "data.augment.erase=0.5",
                                             "data.augment.mixup=0.8",
                                             "data.augment.cutmix=1",
                                             "data.augment.mix=0.8",
                                             "data.augment.repeats=2",
                                             "train.batch=9",
                                             "train.epochs=2",
                                             "train.threads=1"};
  first.insert(first.end(), {"--model", "vit_small_image_32", "--data", set.folder.path()});
  for (const std::string& setting : settings) first.insert(first.end(), {"--set", setting});
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

}  // namespace

TEST_CASE("an image folder trains with every augmentation, resumes to the bit, and is predicted") {
  if (no_program()) return;
  const FolderSet set;
  const ScratchFolder runs;
  const auto train = [&](const std::string& out, const std::vector<std::string>& more) {
    const Finished run = run_program(words({"train", "--quiet", "--out", runs / out}, set, more));
    INFO(run.err);
    REQUIRE(run.code == 0);
  };
  train("whole", {});
  train("parts", {"--max-steps", "5"});
  const Finished resumed = run_program({"train", "--resume", runs / "parts", "--quiet"});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  for (const char* file : {"last.safetensors", "model.safetensors"})
    CHECK(Process::read(runs / "parts/" + file) == Process::read(runs / "whole/" + file));
  train("alone", {"--set", "data.workers=0"});
  const Finished one = run_program({"eval", runs / "whole", "--json"}),
                 two = run_program({"eval", runs / "alone", "--json"});
  REQUIRE(one.code == 0);
  REQUIRE(two.code == 0);
  CHECK(json::parse(one.out)["loss"] == json::parse(two.out)["loss"]);
  CHECK(json::parse(one.out)["samples"] == 12);

  // A file on its own and as a sample of the set is seen alike.
  const std::string file = set.folder / "val/class 0/36.jpg";
  const Finished by_file = run_program({"predict", runs / "whole", file, "--json"}),
                 by_index = run_program({"predict", runs / "whole", "--index", "0", "--json"});
  INFO(by_file.err);
  INFO(by_index.err);
  REQUIRE(by_file.code == 0);
  REQUIRE(by_index.code == 0);
  CHECK(json::parse(by_file.out)[0]["top"] == json::parse(by_index.out)[0]["top"]);
  CHECK(json::parse(by_index.out)[0]["label"] == "class 0");
}

TEST_CASE("check says what a folder holds, how fast it is read, and shows a batch") {
  if (no_program()) return;
  const FolderSet set;
  const ScratchFolder out;
  const Finished run = run_program(words({"check", "--json", "--preview", out / "sheet.png"}, set, {}));
  INFO(run.err);
  REQUIRE(run.code == 0);
  const json found = json::parse(run.out);
  CHECK(found["data"] == "image-folder");
  CHECK(found["splits"][0]["samples"] == 36);
  CHECK(found["splits"][1]["samples"] == 12);
  CHECK(found["splits"][0]["class_samples"] == json{9, 9});
  CHECK(found["splits"][0]["height"] == json{9, 13});
  CHECK(found["splits"][0]["width"] == json{9, 15});
  CHECK(found["splits"][0]["unreadable"] == 0);
  // The mean of 50 (i mod 4) + i over i < 36.
  CHECK(found["splits"][0]["mean"][1].get<double>() == doctest::Approx((75 + 17.5) / 255).epsilon(0.02));
  CHECK(found["loader"]["workers"] == 2);
  CHECK(found["loader"]["samples_per_s"] > 0);
  CHECK(found["preview"]["samples"].size() == 9);
  const Image sheet = load_image(out / "sheet.png");
  CHECK(sheet.channels == 3);
  CHECK(sheet.height == 2 * (96 + 2) + 2);
  CHECK(sheet.width == 8 * (96 + 2) + 2);
  CHECK(run_program(words({"check"}, set, {})).out.find("9 to 13") != std::string::npos);
}

TEST_CASE("check counts and names what cannot be read, and ends with 3") {
  if (no_program()) return;
  const FolderSet set;
  set.folder.write("train/class 1/9.png", {1, 2, 3});
  set.folder.write("val/class 2/zero.jpg", {});
  const Finished run = run_program(words({"check", "--json"}, set, {}));
  CHECK(run.code == 3);
  const json found = json::parse(run.out);
  CHECK(found["splits"][0]["unreadable"] == 1);
  CHECK(found["splits"][0]["errors"][0].get<std::string>().find("class 1/9.png") != std::string::npos);
  CHECK(found["splits"][1]["unreadable"] == 1);
  CHECK(run.err.find("2 samples") != std::string::npos);
}

TEST_CASE("settings of augmentation that cannot be meant end with 2 and name their key") {
  if (no_program()) return;
  for (const std::string wrong :
       {"data.augment.policy=cifar", "data.augment.erase=1.5", "data.augment.erase_mode=black",
        "data.augment.mixup=-1", "data.augment.least_area=0", "data.augment.repeats=0",
        "data.augment.jitter=2", "data.augment.filter=lanczos", "data.augment.cutmix_share=2",
        "data.augment.erase_largest=0.01"}) {
    CAPTURE(wrong);
    const Finished run = run_program({"train", "--set", wrong, "--print-config"});
    CHECK(run.code == 2);
    CHECK(run.err.find(wrong.find("policy") == std::string::npos ? wrong.substr(0, wrong.find('='))
                                                                 : "'cifar'") != std::string::npos);
  }
  for (const char* preset : {"cifar100-full", "deit-imagenet"})
    CHECK(run_program({"train", "--preset", preset, "--print-config"}).code == 0);
}
