// The point-cloud transformer: its cost, its groups and its fusing. conv_fixture_test.cc trains it.
#include <doctest/doctest.h>

#include "models/flops.h"
#include "models/fuse.h"
#include "models/point_transformer.h"
#include "models/registry.h"
#include "tests/fixture.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {
namespace {

ModelConfig small_point_transformer(const std::string& experts = "none") {
  ModelConfig c;
  fields_from_json(fields(c), Fixture("point_transformer.safetensors").word("config"));
  c.moe.blocks = experts;
  c.points.head_dropout = 0.3;
  c.drop_path = 0.2;
  return c;
}

TEST_CASE("the logits do not depend on the order of all points but the first") {
  const PointTransformer model(small_point_transformer(), 3, DType::f64);
  const int64_t P = model.config().points.count;
  const Tensor points = normal({2, P, 3});
  Tensor shuffled = points.clone();
  for (int64_t b = 0; b < 2; ++b)  // the first point is where the search for far ones begins
    for (int64_t i = 1; i < P; ++i)
      std::copy_n(points.data<double>() + (b * P + P - i) * 3, 3,
                  shuffled.mutable_data<double>() + (b * P + i) * 3);
  CHECK(difference(model.forward(shuffled, {}), model.forward(points, {})) <= 1e-13);
}

TEST_CASE("experts in a point-cloud transformer fuse into the mean, and running statistics come along") {
  PointTransformer model(small_point_transformer("1"), 3, DType::f64);
  const Tensor points = normal({4, model.config().points.count, 3});
  model.forward(points, Pass{.training = true, .batch = 4});  // moves the running statistics
  const std::unique_ptr<Model> fused = fuse(model);
  CHECK(fused->parameters().find("blocks.blocks.1.mlp.fc1.weight"));
  CHECK(fused->parameters().find("encoder.first_conv.1.running_mean")->value.at(0) != 0);
  CHECK(output_difference(model, *fused, points) > 1e-4);
  set_experts_to_mean(model);
  CHECK(output_difference(model, *fused, points) <= 1e-13);
}

TEST_CASE("a second pass of a step leaves the running statistics alone") {
  PointTransformer model(small_point_transformer(), 3, DType::f64);
  const Tensor points = normal({4, model.config().points.count, 3});
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
    ModelConfig c = small_point_transformer();
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
