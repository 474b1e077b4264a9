// The point-cloud transformer against what PyTorch computed in f64
// (tests/fixtures/make_point_transformer.py), and its cost, its groups and its fusing.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "engine/io/safetensors.h"
#include "models/flops.h"
#include "models/fuse.h"
#include "models/point_transformer.h"
#include "models/registry.h"
#include "optim/optimizer.h"
#include "tests/places.h"
#include "tests/worst.h"

namespace tessera {
namespace {

class Fixture {
 public:
  Tensor floats(const std::string& name, DType dtype = DType::f64) const {
    const TensorEntry* entry = file_.find(name);
    REQUIRE_MESSAGE(entry, name);
    Tensor tensor(Shape(entry->shape.begin(), entry->shape.end()), DType::f64);
    file_.read_f64(*entry, {tensor.mutable_data<double>(), size_t(tensor.count())});
    return tensor.to(dtype);
  }
  Tensor labels() const {
    const TensorEntry& entry = *file_.find("labels");
    Tensor tensor(Shape(entry.shape.begin(), entry.shape.end()), DType::i32);
    std::memcpy(tensor.mutable_data<int32_t>(), file_.bytes(entry).data(), size_t(tensor.count()) * 4);
    return tensor;
  }
  std::string word(const std::string& key) const { return file_.metadata().at(key); }
  double number(const std::string& key) const { return std::stod(word(key)); }
  std::set<std::string> words(const std::string& key) const {
    std::istringstream all(word(key));
    std::set<std::string> set;
    for (std::string one; all >> one;) set.insert(one);
    return set;
  }
  ModelConfig config() const {
    ModelConfig c;
    fields_from_json(fields(c), nlohmann::json::parse(word("config")));
    return c;
  }

 private:
  SafetensorsFile file_{kSourceFolder + "/tests/fixtures/point_transformer.safetensors"};
};

double largest(const Tensor& x) {
  double most = 0;
  for (int64_t i = 0; i < x.count(); ++i) most = worst(most, std::abs(x.at(i)));
  return most;
}

// The largest difference over the largest value.
double difference(const Tensor& got, const Tensor& want) {
  REQUIRE(got.shape() == want.shape());
  double most = 0;
  for (int64_t i = 0; i < want.count(); ++i) most = worst(most, std::abs(got.at(i) - want.at(i)));
  return most / largest(want);
}

template <class T>
void compare(double bound, double bound_of_finals) {
  const DType dtype = dtype_of<T>();
  CAPTURE(name(dtype));
  const Fixture fixture;
  PointTransformer model(fixture.config(), 0, dtype);
  const std::set<std::string> not_decayed = fixture.words("no_decay"), flat = fixture.words("no_gradient");
  for (const auto& p : model.parameters().parameters()) {
    CAPTURE(p.name);
    if (p.learned) CHECK(p.decay == (not_decayed.count(p.name) == 0));
    Tensor value = p.value;
    const Tensor start = fixture.floats("param." + p.name, dtype);
    REQUIRE(start.shape() == value.shape());
    std::copy_n(start.data<T>(), start.count(), value.mutable_data<T>());
  }
  const auto gradients = model.parameters().make_gradients();
  OptimizerConfig settings;
  settings.weight_decay = fixture.number("weight_decay");
  const auto optimizer = make_optimizer<T>(settings, model.parameters().learned());
  const Tensor points = fixture.floats("x", dtype), labels = fixture.labels(),
               losses = fixture.floats("losses");
  for (int64_t step = 0; step < losses.count(); ++step) {
    CAPTURE(step);
    const ParameterGradients::Scope collect(*gradients);
    gradients->clear();
    Tape tape;
    const Tape::Scope record(&tape);
    const Tensor logits = model.forward(points, Pass{.training = true, .batch = points.size(0)});
    if (step == 0) CHECK(difference(logits, fixture.floats("logits")) <= bound);
    const Tensor loss = softmax_cross_entropy(logits, labels, fixture.number("label_smoothing"));
    CHECK(std::abs(loss.item() - losses.at(step)) <= bound);
    tape.backward(loss);
    for (const auto& p : model.parameters().parameters()) {
      if (!p.learned) continue;
      CAPTURE(p.name);
      T* const from = gradients->flat().template mutable_data<T>() + p.offset;
      Tensor gradient(p.value.shape(), dtype);
      std::copy_n(from, gradient.count(), gradient.template mutable_data<T>());
      if (flat.count(p.name) > 0) {  // rounding alone, and set to 0 as in the fixture
        CHECK(largest(gradient) <= bound);
        std::fill_n(from, gradient.count(), T(0));
      } else if (step == 0) {
        CHECK(difference(gradient, fixture.floats("grad." + p.name)) <= bound);
      }
    }
    optimizer->step(flat_parameters<T>(model, gradients->flat()), fixture.number("lr"));
  }
  for (const auto& p : model.parameters().parameters()) {
    CAPTURE(p.name);
    CHECK(difference(p.value, fixture.floats("final." + p.name)) <= bound_of_finals);
  }
  const Tensor evaluated = model.forward(points, Pass{.batch = points.size(0)});
  CHECK(difference(evaluated, fixture.floats("eval_logits")) <= bound_of_finals);
}

TEST_CASE("a point-cloud transformer trains as in PyTorch, running statistics included") {
  compare<double>(1e-11, 1e-11);
  compare<float>(2e-5, 2e-4);
}

ModelConfig small_config(const std::string& experts = "none") {
  ModelConfig c = Fixture().config();
  c.moe.blocks = experts;
  c.points.head_dropout = 0.3;
  c.drop_path = 0.2;
  return c;
}

Tensor random_clouds(int64_t B, int64_t P, DType dtype) {
  Tensor points({B, P, 3}, DType::f64);
  const Draw draw{.seed = 5, .stream = Stream::test};
  for (int64_t i = 0; i < points.count(); ++i) points.mutable_data<double>()[i] = draw.normal(uint64_t(i));
  return points.to(dtype);
}

TEST_CASE("the logits do not depend on the order of all points but the first") {
  const PointTransformer model(small_config(), 3, DType::f64);
  const int64_t P = model.config().points.count;
  const Tensor points = random_clouds(2, P, DType::f64);
  Tensor shuffled = points.clone();
  for (int64_t b = 0; b < 2; ++b)  // the first point is where the search for far ones begins
    for (int64_t i = 1; i < P; ++i)
      std::copy_n(points.data<double>() + (b * P + P - i) * 3, 3,
                  shuffled.mutable_data<double>() + (b * P + i) * 3);
  CHECK(difference(model.forward(shuffled, {}), model.forward(points, {})) <= 1e-13);
}

TEST_CASE("experts in a point-cloud transformer fuse into the mean, and running statistics come along") {
  PointTransformer model(small_config("1"), 3, DType::f64);
  const Tensor points = random_clouds(4, model.config().points.count, DType::f64);
  model.forward(points, Pass{.training = true, .batch = 4});  // moves the running statistics
  const std::unique_ptr<Model> fused = fuse(model);
  CHECK(fused->parameters().find("blocks.blocks.1.mlp.fc1.weight"));
  CHECK(fused->parameters().find("encoder.first_conv.1.running_mean")->value.at(0) != 0);
  CHECK(output_difference(model, *fused, points) > 1e-4);
  set_experts_to_mean(model);
  CHECK(output_difference(model, *fused, points) <= 1e-13);
}

TEST_CASE("a second pass of a step leaves the running statistics alone") {
  PointTransformer model(small_config(), 3, DType::f64);
  const Tensor points = random_clouds(4, model.config().points.count, DType::f64);
  const Tensor before = model.parameters().flat().clone();
  const auto moved = [&] {
    double most = 0;
    for (int64_t i = 0; i < before.count(); ++i)
      most = std::max(most, std::abs(model.parameters().flat().at(i) - before.at(i)));
    return most;
  };
  model.forward(points, Pass{.training = true, .batch = 4, .update_statistics = false});
  CHECK(moved() == 0);
  model.forward(points, Pass{.training = true, .batch = 4});
  CHECK(moved() > 1e-3);
}

TEST_CASE("the registered point-cloud transformers cost what they hold") {
  for (const char* name : {"point_transformer", "point_transformer_small"})
    for (const char* experts : {"none", "every-2"}) {
      ModelConfig c = model_by_name(name);
      c.moe.blocks = experts;
      CHECK(make_model(c, std::nullopt)->parameters().parameter_count() == cost(c).parameters);
    }
  const ModelConfig c = model_by_name("point_transformer");
  CHECK(c.input_shape() == Shape{1024, 3});
  CHECK(c.tokens() == 65);
}

TEST_CASE("settings that make no groups are errors") {
  const auto message = [](auto&& change) {
    ModelConfig c = small_config();
    change(c);
    try {
      validate(c);
    } catch (const Error& error) {
      CHECK(error.code() == Exit::usage);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message([](auto&) {}) == "");
  CHECK(message([](auto& c) { c.points.groups = 25; }) ==
        "model.points.groups = 25: must be from 1 to points.count = 24");
  CHECK(message([](auto& c) { c.points.group_size = 0; }) ==
        "model.points.group_size = 0: must be from 1 to points.count = 24");
  CHECK(message([](auto& c) { c.points.width = 7; }) ==
        "model.points.width = 7: must be even, from 2 to 8192");
  CHECK(
      message([](auto& c) { c.points.count = 0; }) ==
      "model.points.count = 0: a model of architecture point_transformer takes point clouds; from 1 to 65536 "
      "points");
  CHECK(message([](auto& c) { c.architecture = "vit"; }) ==
        "model.points.count = 24: a model of architecture vit takes images");
}

}  // namespace
}  // namespace tessera
