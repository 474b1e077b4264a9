// What a model is said to do on a set, against its logits counted by hand.
#include "train/evaluate.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "data/image_set.h"
#include "models/registry.h"
#include "train/superclass.h"

namespace tessera {
namespace {

constexpr int64_t kCount = 60, kClasses = 10;

// Images of noise; class 9 has none.
Dataset noise() {
  Dataset set;
  set.name = "noise";
  set.class_names.resize(kClasses);
  const Shape shape{3, 8, 8};
  std::vector<uint8_t> bytes;
  const Draw draw{.seed = 5};
  for (int64_t i = 0; i < kCount * shape.count(); ++i) bytes.push_back(uint8_t(draw.below(256, uint64_t(i))));
  for (int64_t i = 0; i < kCount; ++i) set.labels.push_back(int32_t(i % 9));
  set.samples = std::make_shared<MemoryImages>(shape, std::move(bytes));
  return set;
}

struct Noise {
  Dataset data = noise();
  Normalization normal{{0.5f, 0.5f, 0.5f}, {0.2f, 0.2f, 0.2f}};
  std::unique_ptr<Model> model;
  std::unique_ptr<Replicas> replicas;

  Noise() {
    ModelConfig config = model_by_name("vit_small_image_32");
    config.image_size = 8;
    config.classes = kClasses;
    config.dim = 24;
    config.depth = 2;
    config.heads = 2;
    model = make_model(config, 1);
    Tensor head = model->parameters().find("head.weight")->value;  // whose draw is near 0
    for (int64_t i = 0; i < head.count(); ++i) head.mutable_data<float>()[i] *= 20;
    replicas = std::make_unique<Replicas>(*model, ReplicaOptions{});
  }
  // By sample, from a single batch.
  std::vector<std::vector<float>> logits() {
    Loader loader(data, {.training = false,
                         .batch_size = kCount,
                         .prepare = {.shape = model->input_shape(), .normalization = normal}});
    const Batch& batch = loader.next();
    std::vector<float> all(size_t(kCount * kClasses));
    replicas->forward({batch.inputs, batch.labels, batch.size()}, all.data());
    std::vector<std::vector<float>> rows;
    for (auto at = all.begin(); at != all.end(); at += kClasses) rows.emplace_back(at, at + kClasses);
    return rows;
  }
};

// softmax(row).
std::vector<double> softmax_of(const std::vector<float>& row) {
  std::vector<double> p;
  double total = 0;
  for (const float logit : row) total += p.emplace_back(std::exp(double(logit)));
  for (double& v : p) v /= total;
  return p;
}

TEST_CASE("accuracies and loss are those of the logits, whatever the batch") {
  Noise noise;
  const auto logits = noise.logits();
  for (const auto& [batch, limit] : {std::pair<int64_t, int64_t>{256, 0}, {7, 0}, {60, 0}, {8, 13}}) {
    CAPTURE(batch);
    const int64_t n = limit ? limit : kCount;
    double loss = 0, top1 = 0, top5 = 0;
    std::vector<double> right(size_t(kClasses), 0.0), seen(size_t(kClasses), 0.0);
    for (int64_t i = 0; i < n; ++i) {
      std::vector<float> sorted = logits[size_t(i)];
      const int32_t label = noise.data.labels[i];
      const float own = sorted[size_t(label)];
      std::sort(sorted.rbegin(), sorted.rend());
      loss -= std::log(softmax_of(logits[size_t(i)])[size_t(label)]);
      top1 += own == sorted[0];
      top5 += own >= sorted[4];
      right[size_t(label)] += own == sorted[0];
      ++seen[size_t(label)];
    }
    const Evaluation e = evaluate(*noise.replicas, noise.data, noise.normal, kClasses, batch, limit);
    CHECK(e.samples == n);
    CHECK(e.loss == doctest::Approx(loss / double(n)));
    CHECK(e.top1 == top1 / double(n));
    CHECK(e.top5 == top5 / double(n));
    for (size_t k = 0; k < size_t(kClasses); ++k)
      if (seen[k] > 0)
        CHECK(e.class_accuracy[k] == right[k] / seen[k]);
      else
        CHECK(std::isnan(e.class_accuracy[k]));
  }
}

TEST_CASE("where all logits are equal, or none is a number, nothing is right") {
  Noise noise;
  for (const float value : {0.0f, NAN}) {
    for (const char* name : {"head.weight", "head.bias"}) {
      Tensor head = noise.model->parameters().find(name)->value;
      std::fill_n(head.mutable_data<float>(), head.count(), value);
    }
    const Evaluation e = evaluate(*noise.replicas, noise.data, noise.normal, kClasses);
    CHECK(e.top1 == 0);
    CHECK(e.top5 == 0);
    if (value == 0) CHECK(e.loss == doctest::Approx(std::log(10)));
  }
}

TEST_CASE("confusions are sums of the five largest probabilities, from the first unseen image on") {
  Noise noise;
  const auto logits = noise.logits();
  for (const auto& [first, limit] : {std::pair<int64_t, int64_t>{0, 0}, {17, 0}, {17, 20}}) {
    const int64_t end = limit ? first + limit : kCount;
    std::vector<double> rows(size_t(kClasses * kClasses), 0.0);
    for (int64_t i = first; i < end; ++i) {
      const std::vector<double> p = softmax_of(logits[size_t(i)]);
      std::vector<double> sorted = p;
      std::sort(sorted.rbegin(), sorted.rend());
      for (size_t k = 0; k < size_t(kClasses); ++k)
        if (p[k] >= sorted[4]) rows[size_t(noise.data.labels[i] * kClasses) + k] += p[k];
    }
    const Confusion seen = confusion(*noise.replicas, noise.data, noise.normal, first, limit);
    CHECK(seen.images == end - first);
    for (size_t i = 0; i < rows.size(); ++i) CHECK(seen.rows[i] == doctest::Approx(rows[i]));
  }
}

}  // namespace
}  // namespace tessera
