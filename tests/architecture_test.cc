// What every architecture must do, and what is one's own.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "models/adapt.h"
#include "models/flops.h"
#include "models/fuse.h"
#include "models/registry.h"
#include "models/vit.h"
#include "models/weights.h"
#include "nn/window_attention.h"
#include "optim/optimizer.h"
#include "tests/scratch_folder.h"
#include "tests/small_models.h"
#include "train/replicas.h"

namespace tessera {
namespace {

using testing::names_and_shapes;
using testing::random_images;

TEST_CASE("experts of every architecture learn, are averaged, and fuse into its dense model") {
  constexpr int64_t kB = 10;
  for (ModelConfig c : testing::small_models("1,3")) {
    CAPTURE(c.name);
    c.drop_path = 0.1;
    const auto model = make_model(c, 1);
    const std::vector<StackedParameter> stacked = stacked_parameters(*model);
    CHECK(stacked.size() == 2 * 4);  // two blocks, of whatever stages
    const Tensor images = random_images(kB, c);
    std::vector<int32_t> labels;
    for (int64_t b = 0; b < kB; ++b) labels.push_back(int32_t(b % c.classes));
    const BatchView batch{
        .images = {images.data<float>(), size_t(images.count())}, .labels = labels, .size = kB};

    Replicas replicas(*model, {.workers = 2, .micro_batch = 3});
    const auto optimizer = make_optimizer<float>({}, model->parameters().learned());
    double first = 0, last = 0;
    for (uint32_t step = 0; step < 30; ++step) {
      last = replicas.compute_gradients(batch, Pass{.seed = 3, .step = step}, 0).loss;
      if (step == 0) first = last;
      const FlatParameters<float> flat = flat_parameters<float>(*model, replicas.gradients());
      optimizer->step(flat, 3e-3);
      average_experts<float>(flat.values, stacked, 0.3);
    }
    CHECK(first > 1.2);
    CHECK(last < 0.7 * first);

    const auto fused = fuse(*model);
    CHECK(names_and_shapes(*fused) == names_and_shapes(*make_model(fused_config(c), 0)));
    CHECK(output_difference(*model, *fused, images) > 1e-5);  // the experts still differ
    set_experts_to_mean(*model);
    CHECK(output_difference(*model, *fused, images) <= 2e-6);

    const ScratchFolder folder;
    save_model(folder / "model.safetensors", *fused, {});
    const auto back = load_model(SafetensorsFile(folder / "model.safetensors"));
    CHECK(output_difference(*back, *fused, images) == 0);
  }
}

// Logits and gradients in f64 of a micro-batch inside a batch; watched, every token goes through every layer.
std::vector<double> trained(const ModelConfig& config, bool watched) {
  const auto model = make_model(config, 5, DType::f64);
  const auto gradients = model->parameters().make_gradients();
  const ParameterGradients::Scope collect(*gradients);
  Tape tape;
  const Tape::Scope record(&tape);
  Shape shape{3};
  for (const int64_t axis : config.input_shape()) shape.push_back(axis);
  const Tensor images = normal(shape);
  Pass pass{.training = true, .seed = 3, .step = 7, .first_sample = 2, .batch = 8};
  if (watched) pass.watch = [](const std::string&, const Tensor&) {};
  const Tensor logits = model->forward(images, pass);
  tape.backward(softmax_cross_entropy(logits, Tensor::of({3}, std::vector<int32_t>{0, 3, 1}), 0.1));
  std::vector<double> all = logits.values<double>();
  for (const double value : gradients->flat().values<double>()) all.push_back(value);
  return all;
}

TEST_CASE("tokens that no head reads are left out of the last block, which changes nothing") {
  std::vector<ModelConfig> models = testing::small_models();
  models.push_back(models[0]);
  models.back().distilled = true;
  for (const PartitionScope scope :
       {PartitionScope::batch, PartitionScope::per_image, PartitionScope::replica}) {
    models.push_back(testing::small_models("1,3")[0]);
    models.back().moe.partition = scope;
  }
  models.push_back(testing::routed_models()[0]);
  models.back().moe.routing.group = 1;
  for (ModelConfig& c : models) {
    CAPTURE(c.name);
    CAPTURE(int(c.moe.partition));
    c.drop_path = 0.2;
    for (const double dropout : {0.0, 0.1}) {
      c.dropout = dropout;
      const std::vector<double> all = trained(c, true), read = trained(c, false);
      REQUIRE(all.size() == read.size());
      double most = 0, unit = 0;
      for (size_t i = 0; i < all.size(); ++i) {
        most = std::max(most, std::abs(all[i] - read[i]));
        unit = std::max(unit, std::abs(all[i]));
      }
      CHECK(most <= 1e-13 * unit);
    }
  }
  const auto model = make_model(models[0], 5);
  const Block& block = dynamic_cast<Vit&>(*model).blocks()[0];
  CHECK(block.forward(Tensor::zeros({2, 17, 12}), {}, 1).shape() == Shape{2, 1, 12});
}

TEST_CASE("every architecture starts from its dense weights at another size of images") {
  for (ModelConfig c : testing::small_models()) {
    CAPTURE(c.name);
    const ScratchFolder folder;
    save_model(folder / "dense.safetensors", *make_model(c, 1), {});
    c.image_size = 16;
    c.moe.blocks = "1,3";
    const auto model = make_model(c, 2);
    const std::vector<std::string> changes =
        start_from(*model, SafetensorsFile(folder / "dense.safetensors"));
    CHECK(changes.back() == "FFNs: copied into the 4 experts of blocks 1,3");
    if (c.architecture == "t2t") {  // its positions are not learned
      CHECK(changes.size() == 1);
      continue;
    }
    REQUIRE(changes.size() == 2);
    CHECK_MESSAGE(changes[0].find("pos_embed: (1,") != std::string::npos, changes[0]);
    const int64_t grid = 8 / c.patch;
    CHECK_MESSAGE(changes[0].ends_with(text("resampled from ", grid, " x ", grid, " to ", 2 * grid, " x ",
                                            2 * grid, " patches")),
                  changes[0]);
  }
}

TEST_CASE("the small models for images cost what their paper says") {
  struct Known {
    const char* name;
    double macs, tolerance;
  };
  // Millions, as published with the code of arXiv 2112.13492 for 64 x 64 pixels and 200 classes. What was
  // counted beside the products is not known to us; of CaiT's, our sum is 2.6 % short. Of PiT's patches, that
  // code counts four times the pixels, which is 1.3 %.
  for (const Known& known :
       {Known{"vit_small_image_64", 189.8, 0.002}, Known{"pit_small_image_64", 279.2, 0.015},
        Known{"t2t_small_image_64", 643.0, 0.011}, Known{"swin_small_image_64", 242.3, 0.005},
        Known{"cait_small_image_64", 613.8, 0.027}}) {
    CAPTURE(known.name);
    const double macs = double(cost(model_by_name(known.name)).forward_flops) / 2e6;
    CHECK(std::abs(macs / known.macs - 1) <= known.tolerance);
  }
  CHECK(cost(model_by_name("cait_xxs24_224")).parameters == 11956264);  // timm's
}

TEST_CASE("Swin has its authors' keys and shapes") {
  const auto model = make_model(model_by_name("swin_small_image_32"), std::nullopt);
  const std::set<std::string> all = names_and_shapes(*model);
  for (const char* key :
       {"patch_embed.proj.weight(96,3,2,2)", "patch_embed.norm.weight(96)", "absolute_pos_embed(1,256,96)",
        "layers.0.blocks.1.attn.relative_position_bias_table(49,3)",
        "layers.0.blocks.1.attn.qkv.weight(288,96)", "layers.0.downsample.norm.weight(384)",
        "layers.0.downsample.reduction.weight(192,384)", "layers.1.blocks.5.mlp.fc1.weight(384,192)",
        "layers.2.blocks.3.attn.proj.weight(384,384)",
        "layers.2.blocks.3.attn.relative_position_bias_table(49,12)", "norm.weight(384)",
        "head.weight(100,384)"})
    CHECK_MESSAGE(all.count(key) == 1, key);
  CHECK(all.size() == 5 + 12 * 13 + 2 * 3 + 4);
}

TEST_CASE("a dense CaiT has timm's keys and shapes") {
  std::set<std::string> timm{
      "cls_token(1,1,192)",         "pos_embed(1,196,192)", "patch_embed.proj.weight(192,3,16,16)",
      "patch_embed.proj.bias(192)", "norm.weight(192)",     "norm.bias(192)",
      "head.weight(1000,192)",      "head.bias(1000)"};
  const auto block = [&](const std::string& name) {
    for (const char* key :
         {"gamma_1(192)", "gamma_2(192)", "norm1.weight(192)", "norm1.bias(192)", "attn.proj.weight(192,192)",
          "attn.proj.bias(192)", "norm2.weight(192)", "norm2.bias(192)", "mlp.fc1.weight(768,192)",
          "mlp.fc1.bias(768)", "mlp.fc2.weight(192,768)", "mlp.fc2.bias(192)"})
      timm.insert(name + key);
  };
  for (int i = 0; i < 24; ++i) {
    const std::string name = text("blocks.", i, ".");
    block(name);
    for (const char* key : {"attn.qkv.weight(576,192)", "attn.qkv.bias(576)", "attn.proj_l.weight(4,4)",
                            "attn.proj_l.bias(4)", "attn.proj_w.weight(4,4)", "attn.proj_w.bias(4)"})
      timm.insert(name + key);
  }
  for (int i = 0; i < 2; ++i) {
    const std::string name = text("blocks_token_only.", i, ".");
    block(name);
    for (const char* part : {"q", "k", "v"}) {
      timm.insert(name + "attn." + part + ".weight(192,192)");
      timm.insert(name + "attn." + part + ".bias(192)");
    }
  }
  const auto model = make_model(model_by_name("cait_xxs24_224"), std::nullopt);
  CHECK(names_and_shapes(*model) == timm);
}

TEST_CASE("LayerScale starts by the depth, and in the small-image model by each block's place") {
  const auto gamma = [](const char* name, const char* parameter) {
    const auto model = make_model(model_by_name(name), 0);
    return model->parameters().find(parameter)->value.at(0);
  };
  CHECK(gamma("cait_small_image_32", "blocks.17.gamma_1") == double(0.1f));
  CHECK(gamma("cait_small_image_32", "blocks.18.gamma_2") == double(1e-5f));
  CHECK(gamma("cait_small_image_32", "blocks_token_only.1.gamma_1") == double(0.1f));
  CHECK(gamma("cait_xxs24_224", "blocks.0.gamma_1") == double(1e-5f));
}

TEST_CASE("windows are cut from a grid that was moved round") {
  const Tensor order = window_order({.grid = 4, .size = 2, .shift = 1}, 2);
  const std::vector<int32_t> first{5, 6, 9, 10, 7, 4, 11, 8, 13, 14, 1, 2, 15, 12, 3, 0};
  for (size_t i = 0; i < 16; ++i) {
    CHECK(order.at(int64_t(i)) == first[i]);
    CHECK(order.at(int64_t(i) + 16) == first[i] + 16);
  }
}

TEST_CASE("tokens merge four by four, column by column") {
  const std::vector<int32_t> first{0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15};
  const Tensor order = merging_order(4, 2);
  for (size_t i = 0; i < 16; ++i) {
    CHECK(order.at(int64_t(i)) == first[i]);
    CHECK(order.at(int64_t(i) + 16) == first[i] + 16);
  }
}

TEST_CASE("the mask of shifted windows lets tokens see each other where they were neighbours") {
  for (const Windows& w : {Windows{8, 4, 2}, {6, 3, 1}, {4, 2, 1}}) {
    const Tensor order = window_order(w, 1), mask = shift_mask(w, DType::f32);
    const int64_t N = w.tokens();
    CHECK(mask.shape() == Shape{w.count(), 1, N, N});
    int64_t apart = 0;
    for (int64_t i = 0; i < w.count() * N; ++i)
      for (int64_t j = 0; j < N; ++j) {
        const int64_t a = int64_t(order.at(i)), b = int64_t(order.at(i / N * N + j));
        const bool near =
            std::abs(a / w.grid - b / w.grid) < w.size && std::abs(a % w.grid - b % w.grid) < w.size;
        CHECK(mask.at(i * N + j) == (near ? 0 : -100));
        apart += !near;
      }
    CHECK(apart > 0);
  }
}

TEST_CASE("a configuration that no Swin or CaiT can have names the key") {
  const auto message = [](size_t which, auto&& change) -> std::string {
    ModelConfig c = testing::small_models()[which];
    change(c);
    try {
      validate(c);
    } catch (const Error& error) {
      CHECK(error.code() == Exit::usage);
      return error.what();
    }
    return "";
  };
  CHECK(message(1, [](auto&) {}).empty());
  CHECK(message(2, [](auto&) {}).empty());
  CHECK(message(0, [](auto& c) { c.window = 4; }) ==
        "model.window = 4: a model of architecture vit has no windows");
  CHECK(message(1, [](auto& c) { c.window = 0; }) ==
        "model.window = 0: a model of architecture swin has windows of 1 to 1024 tokens a side");
  CHECK(message(1, [](auto& c) { c.window = 3; }) ==
        "model.window = 3 does not divide the 8 x 8 tokens of stage 0");
  CHECK(message(1, [](auto& c) { c.patch = 4; }) ==
        "model.depths = 2,2,1: the 1 x 1 tokens of stage 1 do not merge by 2 x 2");
  CHECK(message(0, [](auto& c) { c.head_dim = 8; }) ==
        "model.head_dim = 8: a head of a model of architecture vit has always dim / heads channels");
  CHECK(message(2, [](auto& c) { c.head_dim = -1; }) ==
        "model.head_dim = -1: a head of a model of architecture cait has 1 to 8192 channels; 0 stands for "
        "dim / heads");
}

}  // namespace
}  // namespace tessera
