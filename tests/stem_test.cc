// The convolutional stem and its ablations, RepVGG, and what both leave when fused; the diversity of tokens.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "models/fuse.h"
#include "models/registry.h"
#include "models/weights.h"
#include "tests/data_files.h"
#include "tests/messages.h"
#include "tests/process.h"
#include "tests/scratch_folder.h"
#include "tests/small_models.h"
#include "tests/worst.h"
#include "train/diversity.h"

namespace tessera {
namespace {

using testing::random_images;

ModelConfig with_stem(int64_t image_size = 16) {
  ModelConfig c = testing::small_vit();
  c.image_size = image_size;
  c.depth = 2;
  c.stem = {.strides = "2,1,1", .channels = 6, .kernel = 3, .batch_norm = true, .relu = true};
  return c;
}

ModelConfig small_rep_vgg(const std::string& branches = "3x3,1x1,identity,1x3,3x1,1x1-3x3") {
  ModelConfig c = model_by_name("rep_vgg_small_image_32");
  c.name = "small";
  c.image_size = 14;
  c.classes = 5;
  c.dim = 4;
  c.depths = "1,2";
  c.branches = branches;
  return c;
}

// Fills every parameter at random, and a few steps of statistics.
void settle(Model& model) {
  for (const auto& p : model.parameters().parameters()) {
    if (!p.learned) continue;
    Tensor value = p.value;
    const Draw draw{.seed = 4, .site = uint32_t(p.offset)};
    const bool norm = p.value.rank() == 1 && p.name.ends_with("weight");
    const double scale = 1 / std::sqrt(double(p.value.count() / p.value.size(0)));
    for (int64_t i = 0; i < value.count(); ++i)
      value.mutable_data<float>()[i] =
          float(norm ? 1 + 0.3 * draw.normal(uint64_t(i)) : scale * draw.normal(uint64_t(i)));
  }
  for (int step = 0; step < 5; ++step)
    model.forward(random_images(6, model.config()), {.training = true, .batch = 6});
}

testing::Caught usage_error(const ModelConfig& config) {
  return testing::error_of(Exit::usage, [&] { validate(config); });
}

std::set<std::string> names(const Model& model, const std::string& prefix) {
  std::set<std::string> found;
  for (const auto& p : model.parameters().parameters())
    if (p.name.starts_with(prefix)) found.insert(text(p.name.substr(prefix.size()), p.value.shape()));
  return found;
}

TEST_CASE("the paper's stem at 224 pixels has the layers and names of public code with it") {
  ModelConfig c = model_by_name("deit_small_conv_stem_224");
  CHECK(cost(c).parameters - cost(model_by_name("deit_small_patch16_224")).parameters ==
        9408 + 2 * 36864 + 3 * 128 + 64 * 64 * 384 - 768 * 384);
  c.depth = 1;
  const auto model = make_model(c, std::nullopt);
  std::set<std::string> expected{"proj.weight(384,64,8,8)", "proj.bias(384)", "conv.0.weight(64,3,7,7)",
                                 "conv.3.weight(64,64,3,3)", "conv.6.weight(64,64,3,3)"};
  for (const char* norm : {"1", "4", "7"})
    for (const char* part : {"weight", "bias", "running_mean", "running_var"})
      expected.insert(text("conv.", norm, ".", part, "(64)"));
  CHECK(names(*model, "patch_embed.") == expected);
  CHECK(model->whole_batch());
  CHECK_FALSE(make_model(fused_config(c), std::nullopt)->whole_batch());
}

TEST_CASE("every ablation of the stem, at any size: counts, shapes, fused form") {
  for (const int64_t size : {16, 28, 64})
    for (const char* strides : {"none", "1", "4", "2,1,1", "1,1,1", "2,2", "1,2,1,2"})
      for (const bool batch_norm : {false, true})
        for (const bool with_relu : {false, true}) {
          CAPTURE(strides);
          CAPTURE(batch_norm);
          CAPTURE(with_relu);
          ModelConfig c = with_stem(size);
          c.stem.strides = strides;
          c.stem.batch_norm = batch_norm;
          c.stem.relu = with_relu;
          const auto model = make_model(c, 1);
          CHECK(model->parameters().parameter_count() == cost(c).parameters);
          settle(*model);
          const Tensor x = random_images(3, c);
          CHECK(model->forward(x, {}).shape() == Shape{3, 5});
          const auto fused = fuse(*model);
          CHECK(output_difference(*model, *fused, x) <= 1e-5);
          CHECK(fused->parameters().parameter_count() == cost(fused->config()).parameters);
          CHECK(
              names(*fused, "patch_embed.").size() ==
              2 * (1 + (c.stem.strides == "none" ? 0 : size_t(std::ranges::count(c.stem.strides, ',') + 1))));
        }
}

TEST_CASE("BN and ReLU are what the configuration says") {
  ModelConfig c = with_stem();
  const auto least = [&](const ModelConfig& config) {
    const auto model = make_model(config, 1);
    settle(*model);
    double smallest = 0;
    Pass pass{.training = true, .batch = 6};
    pass.watch = [&](const std::string& module, const Tensor& output) {
      for (int64_t i = 0; module.starts_with("patch_embed.conv.") && i < output.count(); ++i)
        smallest = std::min(smallest, output.at(i));
    };
    model->forward(random_images(6, config), pass);
    return smallest;
  };
  CHECK(least(c) == 0);
  c.stem.relu = false;
  CHECK(least(c) < -0.5);
}

TEST_CASE("what is wrong with a stem or with branches is named") {
  ModelConfig c = with_stem();
  c.stem.strides = "2,3";
  CHECK(usage_error(c).message == "model.stem.strides = 2,3: their product must divide model.patch = 4");
  c.stem.strides = "2,x";
  CHECK(usage_error(c).has("'x' is not a number; it is none or a list such as 2,1,1"));
  c.stem.strides = "0";
  CHECK(usage_error(c).message == "model.stem.strides = 0: must be from 1 to 16");
  c = with_stem();
  c.stem.kernel = 4;
  CHECK(usage_error(c).message == "model.stem.kernel = 4: must be odd, to have a middle");
  c = with_stem();
  c.branches = "3x3";
  CHECK(usage_error(c).message == "model.branches = '3x3': a model of architecture vit has none");
  c = small_rep_vgg("");
  CHECK(usage_error(c).has("needs some, such as 3x3,1x1,identity"));
  CHECK(usage_error(small_rep_vgg("3x3,5x5")).has("'5x5' is none; there are 3x3"));
  CHECK(usage_error(small_rep_vgg("3x3,3x3")).has("'3x3' stands there twice"));
  CHECK(usage_error(small_rep_vgg("identity")).has("needs a convolution"));
  CHECK(usage_error(small_rep_vgg("merged,1x1")).has("no other branch beside it"));
  c = small_rep_vgg();
  c.stem.relu = true;
  CHECK(usage_error(c).message == "model.stem: a model of architecture rep_vgg has no stem to choose");
  c = small_rep_vgg();
  c.moe.blocks = "1";
  CHECK(usage_error(c).has("has no feed-forward layers"));
}

TEST_CASE("a stem and experts fuse together") {
  ModelConfig c = with_stem();
  c.moe.blocks = "every-2";
  const auto model = make_model(c, 1);
  settle(*model);
  const auto fused = fuse(*model);
  const Tensor x = random_images(4, c);
  CHECK(output_difference(*model, *fused, x) > 1e-3);
  set_experts_to_mean(*model);
  CHECK(output_difference(*model, *fused, x) <= 1e-5);
  CHECK_FALSE(fused->config().is_moe());
  CHECK_FALSE(fused->config().stem.batch_norm);
}

TEST_CASE("a RepVGG of any branches is a plain VGG when fused") {
  for (const char* branches : {"3x3", "3x3,1x1,identity", "1x1", "3x3,1x3,3x1", "1x1-3x3,identity",
                               "3x3,1x1,identity,1x3,3x1,1x1-3x3"}) {
    CAPTURE(branches);
    const ModelConfig c = small_rep_vgg(branches);
    const auto model = make_model(c, 1);
    CHECK(model->parameters().parameter_count() == cost(c).parameters);
    settle(*model);
    const auto fused = fuse(*model);
    CHECK(names(*fused, "stages.1.") ==
          std::set<std::string>{"0.reparam_conv.weight(8,4,3,3)", "0.reparam_conv.bias(8)",
                                "1.reparam_conv.weight(8,8,3,3)", "1.reparam_conv.bias(8)"});
    CHECK(output_difference(*model, *fused, random_images(3, c)) <= 1e-5);
    CHECK(cost(fused->config()).parameters == fused->parameters().parameter_count());
    const auto again = fuse(*fused);
    CHECK(same_bits(again->parameters().flat(), fused->parameters().flat()));
  }
}

TEST_CASE("running statistics are saved with the model, and torch's step counters are no part of it") {
  const ScratchFolder folder;
  const auto model = make_model(small_rep_vgg(), 1);
  settle(*model);
  save_model(folder / "model.safetensors", *model, {});
  const auto back = load_model(SafetensorsFile(folder / "model.safetensors"));
  CHECK(same_bits(back->parameters().flat(), model->parameters().flat()));

  SafetensorsWriter writer;
  add_parameters(writer, *model);
  const float steps = 3;
  writer.add("stem.conv_kxk.bn.num_batches_tracked", {}, &steps);
  writer.write(folder / "torch.safetensors");
  CHECK_NOTHROW(load_model(SafetensorsFile(folder / "torch.safetensors")));
}

TEST_CASE("the similarity of tokens is the mean cosine of their pairs") {
  // A class token that does not count, and four patches: three alike, whatever their length, and one at right
  // angles to them. Of the 6 pairs, 3 have the cosine 1 and 3 have 0.
  const Tensor x = Tensor::of({1, 5, 2}, std::vector<float>{9, -9, 1, 0, 3, 0, 0.5f, 0, 0, 2});
  CHECK(token_similarity(x) == doctest::Approx(0.5));
  const Tensor opposite = Tensor::of({2, 4, 1}, std::vector<double>{1, 1, -2, -2, 5, 5, 5, 5});
  CHECK(token_similarity(opposite) == doctest::Approx((-1.0 / 3 + 1) / 2));
  CHECK_THROWS_AS(token_similarity(Tensor::zeros({1, 2, 3})), Error);
}

TEST_CASE("models with batch norms from the command line: train, resume, fuse, study") {
  if (no_program()) return;
  const testing::TempFolder folder;
  for (const auto& [prefix, count] : {std::pair{"train", 64u}, std::pair{"t10k", 24u}}) {
    folder.write(std::string("data/") + prefix + "-images-idx3-ubyte", testing::idx_file({count, 28, 28}));
    folder.write(std::string("data/") + prefix + "-labels-idx1-ubyte", testing::idx_file({count}, 10));
  }
  const auto path = [&](const std::string& name) { return folder / name; };
  const auto succeed = [](const std::vector<std::string>& words) {
    const Finished done = run_program(words);
    INFO(done.err);
    REQUIRE(done.code == 0);
    return done.out;
  };
  const std::vector<std::vector<std::string>> models{
      {"vit_conv_stem_small_image_28", "model.dim=16", "model.depth=2", "model.heads=2",
       "model.stem.channels=4", "model.moe.blocks=every-2"},
      {"rep_vgg_small_image_28", "model.dim=4", "model.depths=1,1", "optim.name=sgd", "optim.sam_rho=0.05"}};
  for (const std::vector<std::string>& model : models) {
    CAPTURE(model[0]);
    std::vector<std::string> train{"train", "--model", model[0], "--data", path("data"), "-q"};
    for (const char* setting : {"train.batch=16", "train.epochs=2", "train.threads=2"})
      train.insert(train.end(), {"--set", setting});
    for (size_t i = 1; i < model.size(); ++i) train.insert(train.end(), {"--set", model[i]});
    const auto into = [&](const std::string& name, std::vector<std::string> more = {}) {
      std::vector<std::string> words = train;
      words.insert(words.end(), {"--out", path(name)});
      words.insert(words.end(), more.begin(), more.end());
      return words;
    };
    succeed(into("whole"));
    succeed(into("parts", {"--max-steps", "3"}));
    succeed({"train", "--resume", path("parts"), "-q"});
    CHECK(Process::read(path("whole/last.safetensors")) == Process::read(path("parts/last.safetensors")));
    const auto fused = nlohmann::json::parse(
        succeed({"fuse", path("whole/model.safetensors"), "-o", path("fused.safetensors"), "--json"}));
    CHECK(fused["difference"].get<double>() < 1e-5);
    CHECK(fused["real_images"].get<bool>());
    CHECK(succeed({"eval", path("fused.safetensors"), "--data", path("data"), "--json"}).find("\"top1\"") !=
          std::string::npos);
    const Finished study = run_program({"study", "diversity", path("whole"), path("fused.safetensors"),
                                        "--data", path("data"), "--out", path("study"), "--json"});
    if (model[0].starts_with("rep_vgg")) {
      CHECK(study.code == int(Exit::usage));
      CHECK(study.err.find("rep_vgg has no patch tokens") != std::string::npos);
    } else {
      INFO(study.err);
      REQUIRE(study.code == 0);
      const auto similarity = nlohmann::json::parse(study.out)["models"][0]["similarity"];
      CHECK(similarity.size() == 3);
      CHECK(similarity["blocks.1"].get<double>() <= 1);
      CHECK(std::filesystem::exists(path("study/diversity.svg")));
    }
    for (const char* made : {"whole", "parts"}) std::filesystem::remove_all(path(made));
  }
}

}  // namespace
}  // namespace tessera
