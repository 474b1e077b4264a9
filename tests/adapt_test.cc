// Starting a model from the weights of another one.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "models/adapt.h"
#include "models/fuse.h"
#include "models/registry.h"
#include "models/vit.h"
#include "tests/messages.h"
#include "tests/scratch_folder.h"
#include "tests/small_models.h"

namespace tessera {
namespace {

using testing::random_images;

ModelConfig adapted_vit(const std::string& moe) {
  ModelConfig c = testing::small_vit(moe);
  c.image_size = 12;
  c.depth = 2;
  c.dim = 8;
  c.heads = 2;
  return c;
}

// A dense model's file.
struct Saved {
  ScratchFolder folder;
  Vit model;

  explicit Saved(const ModelConfig& config = adapted_vit("none")) : model(config, 7) {
    for (const auto& p : model.parameters().parameters()) {
      Tensor value = p.value;
      const Draw draw{.seed = 1, .site = uint32_t(p.offset)};
      for (int64_t i = 0; i < value.count(); ++i)
        value.mutable_data<float>()[i] += float(draw.normal(uint64_t(i)));
    }
    save_model(folder / "w.safetensors", model, {});
  }
  SafetensorsFile file() const { return SafetensorsFile(folder / "w.safetensors"); }
};

const float* values_of(const Model& model, const std::string& name) {
  const auto* p = model.parameters().find(name);
  REQUIRE(p);
  return p->value.data<float>();
}

bool equal_values(const Model& a, const Model& b, const std::string& name) {
  const auto* p = a.parameters().find(name);
  return std::equal(p->value.data<float>(), p->value.data<float>() + p->value.count(), values_of(b, name));
}

TEST_CASE("a mixture that starts from a dense model is that model, in every expert") {
  const Saved dense;
  const ModelConfig config = adapted_vit("every-2");
  Vit mixture(config, 1);
  const auto changes = start_from(mixture, dense.file());
  REQUIRE(changes.size() == 1);
  CHECK(changes[0] == "FFNs: copied into the 4 experts of blocks every-2");
  CHECK(output_difference(dense.model, mixture, random_images(3, config)) < 1e-6);
  CHECK(output_difference(dense.model, *fuse(mixture), random_images(3, config)) == 0);
  const float* fc1 = values_of(mixture, "blocks.1.moe.fc1.weight");
  const float* source = values_of(dense.model, "blocks.1.mlp.fc1.weight");
  for (int64_t e = 0; e < 4; ++e) CHECK(std::equal(source, source + 8 * 16, fc1 + e * 8 * 16));
}

TEST_CASE("routed mixtures take the dense FFNs into their experts, and keep fresh routers") {
  const Saved dense;
  ModelConfig token = adapted_vit("1"), image = adapted_vit("final-1");
  token.moe.router = MoeRouter::token;
  image.architecture = "mobile_vmoe";
  image.moe.router = MoeRouter::image;
  image.moe.routing.renormalize = true;  // a gate of 1: whatever the router says, the dense model
  for (const ModelConfig& config : {token, image}) {
    CAPTURE(config.architecture);
    const auto mixture = make_model(config, 1), fresh = make_model(config, 1);
    const auto changes = start_from(*mixture, dense.file());
    const std::string router = config.architecture == "vit" ? "blocks.1.moe.router.weight" : "router.weight";
    REQUIRE(changes.size() == 2);
    CHECK(changes[0] == router + ": (4,8), which no dense model has: drawn anew");
    CHECK(changes[1] == "FFNs: copied into the 4 experts of blocks " + config.moe.blocks);
    CHECK(equal_values(*mixture, *fresh, router));
    for (const char* name : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}) {
      const auto* source = dense.model.parameters().find(std::string("blocks.1.mlp.") + name);
      const float *from = source->value.data<float>(),
                  *to = values_of(*mixture, std::string("blocks.1.moe.") + name);
      for (int64_t e = 0, n = source->value.count(); e < 4; ++e)
        CHECK(std::equal(from, from + n, to + e * n));
    }
    if (config.architecture == "mobile_vmoe")
      CHECK(output_difference(dense.model, *mixture, random_images(3, config)) < 1e-6);
  }
}

TEST_CASE("other classes draw the head anew, and only it") {
  const Saved dense;
  ModelConfig config = adapted_vit("none");
  config.classes = 3;
  Vit model(config, 9);
  const Vit fresh(config, 9);
  const auto changes = start_from(model, dense.file());
  REQUIRE(changes.size() == 2);
  CHECK(changes[0] == "head.weight: (5,8) in the file, (3,8) here: drawn anew");
  CHECK(equal_values(model, fresh, "head.weight"));
  CHECK(equal_values(model, fresh, "head.bias"));
  for (const auto& p : model.parameters().parameters())
    if (!p.name.starts_with("head.")) CHECK_MESSAGE(equal_values(model, dense.model, p.name), p.name);
}

TEST_CASE("other channels repeat the kernels or sum them") {
  const Saved dense;
  const float* old = values_of(dense.model, "patch_embed.proj.weight");
  for (const int64_t channels : {1, 2, 5}) {
    ModelConfig config = adapted_vit("none");
    config.channels = channels;
    Vit model(config, 9);
    CHECK(start_from(model, dense.file()).size() == 1);
    const float* own = values_of(model, "patch_embed.proj.weight");
    for (int64_t d = 0; d < 8; ++d)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < 16; ++p) {
          const auto at = [&](int64_t channel) { return old[(d * 3 + channel % 3) * 16 + p]; };
          const float expected = channels == 1 ? at(0) + at(1) + at(2) : at(c) * 3 / float(channels);
          CHECK(own[(d * channels + c) * 16 + p] == doctest::Approx(expected));
        }
  }
}

TEST_CASE("another image size resamples the position embeddings") {
  const Saved dense;
  ModelConfig config = adapted_vit("none");
  config.image_size = 20;
  Vit model(config, 9);
  const auto changes = start_from(model, dense.file());
  REQUIRE(changes.size() == 1);
  CHECK(changes[0] ==
        "pos_embed: (1,10,8) in the file, (1,26,8) here: resampled from 3 x 3 to 5 x 5 patches");
  const float *from = values_of(dense.model, "pos_embed"), *to = values_of(model, "pos_embed");
  CHECK(std::equal(from, from + 8, to));
  CHECK(std::equal(to + 8, to + 26 * 8, resample_grid({from + 8, 9 * 8}, 3, 5, 8).begin()));
}

// From torch.nn.functional.interpolate(mode="bicubic", antialias=True) of PyTorch 1.13.
TEST_CASE("resampling agrees with PyTorch's") {
  const auto check = [](int64_t G, int64_t S, const std::vector<float>& expected) {
    std::vector<float> grid;
    for (int64_t i = 0; i < G * G * 2; ++i) grid.push_back(float(i * i) * 0.01f + float(i % 3));
    const std::vector<float> out = resample_grid(grid, G, S, 2);
    REQUIRE(out.size() == expected.size());
    for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == doctest::Approx(expected[i]).epsilon(1e-4));
  };
  check(3, 5,
        {-0.17976f, 1.04457f, 0.72221f, 0.54883f, 1.99472f, 0.03566f, 1.50215f, 1.38428f, 1.02882f, 2.3392f,
         -0.08159f, 1.18852f, 0.8553f,  0.72769f, 2.19134f, 0.27806f, 1.76231f, 1.69022f, 1.3239f,  2.68005f,
         0.18792f,  1.54132f, 1.18836f, 1.14403f, 2.64f,    0.81f,    2.32657f, 2.33776f, 1.9517f,  3.39113f,
         0.89267f,  2.32935f, 1.95664f, 1.99559f, 3.52388f, 1.77716f, 3.32605f, 3.42053f, 3.01472f, 4.53743f,
         1.32995f,  2.81241f, 2.42884f, 2.51357f, 4.05962f, 2.35868f, 3.92533f, 4.06558f, 3.64891f, 5.2174f});
  check(5, 3,
        {0.96738f, 1.32101f, 1.78613f, 1.82096f, 2.03138f, 2.33776f, 5.69128f, 5.86928f, 6.82471f, 7.45316f,
         8.81182f, 9.24173f, 14.56615f, 15.72237f, 17.62928f, 18.20236f, 19.93107f, 21.07485f});
  check(4, 2, {1.63386f, 1.55817f, 1.97895f, 2.28296f, 5.26656f, 5.78974f, 7.02358f, 7.58202f});
}

TEST_CASE("what cannot be adapted is listed, and nothing has changed") {
  const Saved dense;
  const auto fails_with = [](const ModelConfig& config, const SafetensorsFile& file,
                             const std::string& words) {
    Vit model(config, 9);
    const Vit fresh(config, 9);
    CHECK(testing::error_of(Exit::file, [&] { start_from(model, file); }).has(words));
    for (const auto& p : model.parameters().parameters()) CHECK(equal_values(model, fresh, p.name));
  };
  ModelConfig config = adapted_vit("none");
  config.depth = 3;
  fails_with(config, dense.file(), "missing: blocks.2.norm1.weight(8)");
  config.depth = 1;
  fails_with(config, dense.file(), "not of this model: 'blocks.1.norm1.weight'(8)");
  config = adapted_vit("none");
  config.mlp_ratio = 3;
  fails_with(config, dense.file(), "blocks.0.mlp.fc1.weight: (16,8) in the file, (24,8) in the model");
  const Saved mixture(adapted_vit("every-2"));
  fails_with(adapted_vit("none"), mixture.file(), "fuse it first");
}

}  // namespace
}  // namespace tessera
