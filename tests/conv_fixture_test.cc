// Models with convolutions and batch norms against what PyTorch computed in f64
// (tests/fixtures/make_conv.py): training, running statistics, eval mode, and fusing.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "models/fuse.h"
#include "models/registry.h"
#include "optim/clip.h"
#include "optim/optimizer.h"
#include "tests/fixture.h"

namespace tessera {
namespace {

template <class T>
std::unique_ptr<Model> model_of(const Fixture& fixture) {
  ModelConfig config;
  fields_from_json(fields(config), nlohmann::json::parse(fixture.word("config")));
  auto model = make_model(config, std::nullopt, dtype_of<T>());
  size_t expected = 0;
  for (const TensorEntry& entry : fixture.file().entries()) expected += entry.name.starts_with("param.");
  REQUIRE(model->parameters().parameters().size() == expected);
  for (const auto& p : model->parameters().parameters()) {
    Tensor value = p.value;
    const Tensor start = fixture.floats("param." + p.name, dtype_of<T>());
    REQUIRE(start.shape() == value.shape());
    std::copy_n(start.data<T>(), start.count(), value.mutable_data<T>());
  }
  return model;
}

// Logits in training mode and their loss, on the tape if there is one.
struct Forward {
  Tensor logits, loss;
  Forward(const Model& model, const Fixture& f)
      : logits(model.forward(f.floats("x", model.parameters().dtype()), {.training = true})),
        loss(softmax_cross_entropy(logits, f.integers("labels"), f.number("label_smoothing"))) {}
};

template <class T>
void compare(const std::string& file, double bound) {
  CAPTURE(file);
  CAPTURE(sizeof(T));
  const Fixture fixture(file);
  const auto model = model_of<T>(fixture);
  ParameterStore& store = model->parameters();
  CHECK(model->whole_batch());
  const auto gradients = store.make_gradients();
  const ParameterGradients::Scope collect(*gradients);
  OptimizerConfig config;
  config.weight_decay = fixture.number("weight_decay");
  config.eps = fixture.number("adam_eps");
  const auto optimizer = make_optimizer<T>(config, store.learned());
  const Tensor losses = fixture.floats("losses"), norms = fixture.floats("grad_norms");
  for (int64_t step = 0; step < fixture.integer("steps"); ++step) {
    CAPTURE(step);
    gradients->clear();
    Tape tape;
    const Tape::Scope record(&tape);
    const Forward forward(*model, fixture);
    tape.backward(forward.loss);
    CHECK(std::abs(forward.loss.item() - losses.at(step)) <= bound);
    T* const flat = gradients->flat().template mutable_data<T>();
    const double norm = reduce_gradients<T>(std::span<T* const>(&flat, 1), store.learned());
    CHECK(std::abs(norm / norms.at(step) - 1) <= bound);
    if (step == 0) {
      CHECK(difference(forward.logits, fixture.floats("logits")) <= bound);
      for (size_t i = 0; i < store.parameters().size(); ++i) {
        const auto& p = store.parameters()[i];
        if (!p.learned) continue;
        CAPTURE(p.name);
        REQUIRE(gradients->written(int(i)));
        const Tensor want = fixture.floats("grad." + p.name);
        Tensor got(p.value.shape(), dtype_of<T>());
        std::copy_n(flat + p.offset, got.count(), got.mutable_data<T>());
        CHECK(difference(got, want) <= bound * std::max(largest(want), 1e-2));  // some are 0
      }
    }
    optimizer->step(flat_parameters<T>(*model, gradients->flat()), fixture.number("lr"));
  }
  CHECK(std::abs(Forward(*model, fixture).loss.item() - fixture.floats("final_loss").item()) <= bound);
  for (const auto& p : store.parameters()) {
    CAPTURE(p.name);
    CHECK(difference(p.value, fixture.floats("final." + p.name)) <= bound);
  }
  const Tensor x = fixture.floats("x", dtype_of<T>());
  CHECK(difference(model->forward(x, {}), fixture.floats("eval_logits")) <= bound);

  const auto fused = fuse(*model);
  CHECK(output_difference(*model, *fused, x) <= (std::is_same_v<T, double> ? 1e-12 : 1e-5));
  for (const auto& p : fused->parameters().parameters()) CHECK_MESSAGE(p.learned, p.name);
  CHECK_FALSE(fused->whole_batch());
  CHECK(fused->parameters().parameter_count() == cost(fused->config()).parameters);
  CHECK(store.parameter_count() == cost(model->config()).parameters);
}

TEST_CASE("a ViT behind a convolutional stem trains, evaluates and fuses as in PyTorch") {
  compare<double>("conv_stem_vit.safetensors", 1e-11);
  compare<float>("conv_stem_vit.safetensors", 1e-5);
}

TEST_CASE("a patchify stem with BN and ReLU trains, evaluates and fuses as in PyTorch") {
  compare<double>("norm_patch_vit.safetensors", 1e-11);
  compare<float>("norm_patch_vit.safetensors", 1e-5);
}

TEST_CASE("a RepVGG of all kinds of branches trains, evaluates and fuses as in PyTorch") {
  compare<double>("rep_vgg.safetensors", 1e-11);
  compare<float>("rep_vgg.safetensors", 2e-5);
}

}  // namespace
}  // namespace tessera
