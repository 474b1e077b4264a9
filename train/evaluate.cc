#include "train/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>

namespace tessera {

std::optional<double> Evaluation::router_accuracy() const {
  const auto found = notes.find("router.accuracy");
  return found == notes.end() ? std::nullopt : std::optional(found->second[0]);
}

Evaluation evaluate(Replicas& replicas, const Dataset& data, const Normalization& normalization,
                    int64_t classes, int64_t batch, int64_t limit, int workers, const Votes& votes) {
  const int64_t K = classes;
  batch = std::min(batch, limit > 0 ? std::min(limit, data.count()) : data.count());
  LoaderOptions options{
      .training = false,
      .vote = votes.count > 1,
      .batch_size = batch,
      .prepare = {.shape = replicas.input_shape(), .normalization = normalization, .cloud = votes.augment},
      .limit = limit,
      .workers = workers};
  std::vector<std::unique_ptr<Loader>> loaders;  // one a vote
  for (int64_t v = 0; v < votes.count; ++v) {
    options.seed = votes.seed + uint64_t(v);
    loaders.push_back(std::make_unique<Loader>(data, options));
  }
  std::vector<float> logits(size_t(batch * K)), vote(logits.size());
  std::vector<int64_t> right(static_cast<size_t>(K)), seen(static_cast<size_t>(K));
  Evaluation result;
  double seconds = 0;
  int64_t in_top5 = 0;
  for (int64_t step = 0; step < loaders[0]->steps_per_epoch(); ++step) {
    std::fill(logits.begin(), logits.end(), 0.0f);
    const Batch* batch_of_vote = nullptr;
    for (const auto& loader : loaders) {
      batch_of_vote = &loader->next();
      const auto start = std::chrono::steady_clock::now();
      Notes notes;
      replicas.forward({batch_of_vote->inputs, batch_of_vote->labels, batch_of_vote->size()}, vote.data(),
                       &notes);
      seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      for (size_t i = 0; i < logits.size(); ++i) logits[i] += vote[i] / float(votes.count);
      add_notes(result.notes, notes, double(batch_of_vote->size()) / double(votes.count));
    }
    const Batch& part = *batch_of_vote;  // all votes have the same samples
    for (int64_t b = 0; b < part.size(); ++b) {
      const float* const row = &logits[size_t(b * K)];
      const int32_t label = part.labels[size_t(b)];
      TESSERA_CHECK_AS(Exit::data, label < K, "evaluate: ", data.name, " has the label ", label,
                       " and the model only ", K, " classes");
      // Ties count against the model, as do NaNs.
      int64_t above = 0;
      double total = 0;
      const float largest = *std::max_element(row, row + K);
      for (int64_t k = 0; k < K; ++k) {
        above += !(row[k] < row[label]) && k != label;
        total += std::exp(double(row[k] - largest));
      }
      result.loss += std::log(total) + double(largest - row[label]);
      right[size_t(label)] += above == 0;
      in_top5 += above < 5;
      ++seen[size_t(label)];
      ++result.samples;
    }
  }
  const double n = double(std::max<int64_t>(1, result.samples));
  int64_t correct = 0;
  for (size_t k = 0; k < right.size(); ++k) {
    correct += right[k];
    result.class_accuracy.push_back(seen[k] ? double(right[k]) / double(seen[k])
                                            : std::numeric_limits<double>::quiet_NaN());
  }
  result.loss /= n;
  for (auto& [name, sums] : result.notes)
    for (double& sum : sums) sum /= n;
  result.top1 = double(correct) / n;
  result.top5 = K >= 5 ? double(in_top5) / n : 0;
  result.images_per_second = seconds > 0 ? n / seconds : 0;
  return result;
}

}  // namespace tessera
