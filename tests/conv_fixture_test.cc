// Models with batch norms against what PyTorch computed in f64 (tests/fixtures/make_conv.py and
// make_point_transformer.py): training, running statistics, eval mode, and fusing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "engine/tensor/memory.h"
#include "models/fuse.h"
#include "models/registry.h"
#include "optim/clip.h"
#include "optim/optimizer.h"
#include "tests/card.h"
#include "tests/fixture.h"
#include "tests/worst.h"

namespace tessera {
namespace {

template <class T>
std::unique_ptr<Model> model_of(const Fixture& fixture) {
  ModelConfig config;
  fields_from_json(fields(config), fixture.word("config"));
  auto model = make_model(config, std::nullopt, dtype_of<T>());
  size_t expected = 0;
  for (const TensorEntry& entry : fixture.file().entries()) expected += entry.name.starts_with("param.");
  REQUIRE(model->parameters().parameters().size() == expected);
  for (const auto& p : model->parameters().parameters()) {
    Tensor value = p.value;
    const Tensor start = fixture.floats("param." + p.name, dtype_of<T>());
    REQUIRE(start.shape() == value.shape());
    value.assign(std::span<const T>(start.values<T>()));
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

// The words of a setting that a fixture may lack.
std::set<std::string> words_of(const Fixture& fixture, const std::string& key) {
  std::set<std::string> words;
  if (fixture.file().metadata().count(key) == 0) return words;
  std::istringstream all(fixture.word(key));
  for (std::string word; all >> word;) words.insert(word);
  return words;
}

template <class T>
std::unique_ptr<Model> train_as_in(const std::string& file, double bound, double bound_of_finals) {
  CAPTURE(file);
  CAPTURE(sizeof(T));
  const Fixture fixture(file);
  auto model = model_of<T>(fixture);
  ParameterStore& store = model->parameters();
  CHECK(model->whole_batch());
  const std::set<std::string> not_decayed = words_of(fixture, "no_decay"),
                              flat_ones = words_of(fixture, "no_gradient");
  if (!not_decayed.empty())
    for (const auto& p : store.parameters())
      if (p.learned) CHECK_MESSAGE(p.decay == (not_decayed.count(p.name) == 0), p.name);
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
    if (step == 0) CHECK(difference(forward.logits, fixture.floats("logits")) <= bound);
    const std::vector<T> all = gradients->flat().template values<T>();
    for (size_t i = 0; i < store.parameters().size(); ++i) {
      const auto& p = store.parameters()[i];
      if (!p.learned) continue;
      CAPTURE(p.name);
      REQUIRE(gradients->written(int(i)));
      const auto first = all.begin() + p.offset;
      const Tensor got = Tensor::of(p.value.shape(), std::vector<T>(first, first + p.value.count()));
      if (flat_ones.count(p.name) > 0) {  // rounding alone, and set to 0 as in the fixture
        CHECK(largest(got) <= bound);
        fill(flat + p.offset, got.count(), T(0));
      } else if (step == 0) {
        const Tensor want = fixture.floats("grad." + p.name);
        CHECK(difference(got, want) <= bound * std::max(largest(want), 1e-2));  // some are 0
      }
    }
    optimizer->step(flat_parameters<T>(*model, gradients->flat()), fixture.number("lr"));
  }
  if (fixture.file().find("final_loss"))
    CHECK(std::abs(Forward(*model, fixture).loss.item() - fixture.floats("final_loss").item()) <= bound);
  for (const auto& p : store.parameters()) {
    CAPTURE(p.name);
    CHECK(difference(p.value, fixture.floats("final." + p.name)) <= bound_of_finals);
  }
  const Tensor evaluated = model->forward(fixture.floats("x", dtype_of<T>()), {});
  CHECK(difference(evaluated, fixture.floats("eval_logits")) <= bound_of_finals);
  CHECK(store.parameter_count() == cost(model->config()).parameters);
  return model;
}

template <class T>
void compare_and_fuse(const std::string& file, double bound) {
  const auto model = train_as_in<T>(file, bound, bound), fused = fuse(*model);
  const Tensor x = Fixture(file).floats("x", dtype_of<T>());
  CHECK(output_difference(*model, *fused, x) <= (std::is_same_v<T, double> ? 1e-12 : 1e-5));
  for (const auto& p : fused->parameters().parameters()) CHECK_MESSAGE(p.learned, p.name);
  CHECK_FALSE(fused->whole_batch());
  CHECK(fused->parameters().parameter_count() == cost(fused->config()).parameters);
}

TEST_CASE("a ViT behind a convolutional stem trains, evaluates and fuses as in PyTorch") {
  compare_and_fuse<double>("conv_stem_vit.safetensors", 1e-11);
  compare_and_fuse<float>("conv_stem_vit.safetensors", 1e-5);
}

TEST_CASE("a patchify stem with BN and ReLU trains, evaluates and fuses as in PyTorch") {
  compare_and_fuse<double>("norm_patch_vit.safetensors", 1e-11);
  compare_and_fuse<float>("norm_patch_vit.safetensors", 1e-5);
}

TEST_CASE("a RepVGG of all kinds of branches trains, evaluates and fuses as in PyTorch") {
  compare_and_fuse<double>("rep_vgg.safetensors", 1e-11);
  compare_and_fuse<float>("rep_vgg.safetensors", 2e-5);
}

TEST_CASE("a point-cloud transformer trains and evaluates as in PyTorch") {
  train_as_in<double>("point_transformer.safetensors", 1e-11, 1e-11);
  train_as_in<float>("point_transformer.safetensors", 2e-5, 2e-4);
}

TEST_CASE("models with batch norms train and evaluate on a card as in PyTorch") {
  if (no_card()) return;
  const Device::Scope there(kCard);
  for (const char* model : {"conv_stem_vit", "norm_patch_vit", "rep_vgg", "point_transformer"}) {
    train_as_in<double>(model + std::string(".safetensors"), 1e-10, 1e-10);  // another order of the sums
    train_as_in<float>(model + std::string(".safetensors"), 1e-4, 1e-3);
  }
}

}  // namespace
}  // namespace tessera
