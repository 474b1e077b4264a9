// tessera fuse: experts, batch norms and branches become plain layers, which are checked against them.
#include "models/fuse.h"

#include <algorithm>
#include <iostream>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/output.h"
#include "models/flops.h"

namespace tessera::cli {
namespace {

struct FuseOptions {
  std::string weights, out, data, name;
  int64_t limit = 256, threads = 0;
  double tolerance = 1e-5;
  bool json = false;
};

constexpr int64_t kBatch = 32;

// The images that the two models are compared on, a batch at a time.
class TestImages {
 public:
  TestImages(const FuseOptions& o, const ModelFile& file) : config_(file.config()), count_(o.limit) {
    const std::string folder = data_folder(file, o.data);
    if (folder.empty()) {
      words_ = text(grouped(count_), " images of random numbers, as no data set is at hand");
      return;
    }
    data_ = load_data_for(file, folder, Split::test, o.name);
    preparation_ = data_->samples->preparation(prepare_options(file, *data_));
    count_ = std::min(count_, data_->count());
    words_ = text(grouped(count_), " test images of ", data_->name);
  }

  int64_t count() const { return count_; }
  bool real() const { return data_.has_value(); }
  const std::string& words() const { return words_; }

  Tensor batch(int64_t begin, int64_t end) const {
    const int64_t size = config_.input_shape().count();
    Shape shape{end - begin};
    for (const int64_t axis : config_.input_shape()) shape.push_back(axis);
    Tensor images(shape, DType::f32);
    float* const out = images.mutable_data<float>();
    const Draw draw{.stream = Stream::test};
    for (int64_t i = begin; i < end; ++i) {
      float* const image = out + (i - begin) * size;
      if (data_)
        preparation_->prepare(i, {}, {image, size_t(size)});
      else
        for (int64_t j = 0; j < size; ++j) image[j] = float(draw.normal(uint64_t(i * size + j)));
    }
    return images;
  }

 private:
  const ModelConfig& config_;
  int64_t count_;
  std::optional<Dataset> data_;
  std::unique_ptr<Preparation> preparation_;
  std::string words_;
};

// NaN if it is NaN anywhere.
double largest_difference(const Model& a, const Model& b, const TestImages& images) {
  double largest = 0;
  for (int64_t begin = 0; begin < images.count(); begin += kBatch) {
    const double difference =
        output_difference(a, b, images.batch(begin, std::min(begin + kBatch, images.count())));
    if (!(difference <= largest)) largest = difference;
    if (largest != largest) break;
  }
  return largest;
}

Metadata carried_over(const Metadata& metadata) {
  Metadata kept;
  for (const char* key : {kClassesKey, kMeanKey, kStdKey, kCropKey, kDataKey, kDataNameKey})
    if (const auto found = metadata.find(key); found != metadata.end()) kept.insert(*found);
  return kept;
}

int run(const FuseOptions& o) {
  TESSERA_CHECK_AS(Exit::usage, o.tolerance >= 0, "--tolerance ", o.tolerance, ": must not be negative");
  use_threads(o.threads);
  const ModelFile file = load_model_file(o.weights);
  const std::unique_ptr<Model> fused = fuse(*file.model);
  const TestImages images(o, file);

  const auto stacked = stacked_parameters(*file.model);
  const double deviation = expert_deviation<float>(file.model->parameters().flat().data<float>(), stacked);
  const double moved = largest_difference(*file.model, *fused, images);
  set_experts_to_mean(*file.model);
  const double difference = largest_difference(*file.model, *fused, images);
  TESSERA_CHECK_AS(Exit::verification, difference <= o.tolerance, "fusing ", file.path, ": on ",
                   images.words(), " the fused model differs from the given one",
                   stacked.empty() ? "" : ", its experts at their mean,", " by ", difference,
                   " of the largest logit, above the tolerance ", o.tolerance, "; nothing was written");
  save_model(o.out, *fused, carried_over(file.metadata));

  const ModelCost before = cost(file.config()), after = cost(fused->config());
  if (o.json) {
    print_json({{"weights", file.path},
                {"out", o.out},
                {"images", images.count()},
                {"real_images", images.real()},
                {"difference", difference},
                {"tolerance", o.tolerance},
                {"expert_deviation", deviation},
                {"difference_to_mixture", moved},
                {"parameters", {{"before", before.parameters}, {"after", after.parameters}}},
                {"forward_flops", {{"before", before.forward_flops}, {"after", after.forward_flops}}}});
    return 0;
  }
  if (config_to_json(fused->config()) == config_to_json(file.config()))
    std::cout << "A plain model: there is nothing to fuse, its weights are copied.\n";
  std::cout << "Compared on " << images.words() << ", relative to the largest logit:\n";
  Table checks("llr");
  const std::string within = text(difference, " (tolerance ", o.tolerance, ")");
  if (stacked.empty()) {
    checks.add({"", "fused against the model as trained", within});
  } else {
    checks.add({"", "fused against experts at their mean", within});
    checks.add({"", "fused against the mixture as trained", text(moved)});
    checks.add({"", "experts' deviation from their mean", text(deviation)});
  }
  checks.print();
  std::cout << '\n';
  Table costs("lrr");
  costs.add({"", "before", "after"});
  costs.add({"parameters", grouped(before.parameters), grouped(after.parameters)});
  costs.add({"one image", operations(before.forward_flops), operations(after.forward_flops)});
  costs.print();
  std::cout << "\nwrote " << o.out << '\n';
  return 0;
}

}  // namespace

Command fuse_command() {
  return {"fuse", "collapse experts, batch norms and branches into a plain model, checked on real images",
          R"(Each group of experts becomes their mean; a batch norm goes into the convolution before
it, and the branches of a RepVGG become one convolution. The result is compared with the
given model, its experts all set to their mean, which is the same function; above the
tolerance nothing is written and the exit code is 7. The file has timm's names.

  tessera fuse runs/ewa/model.safetensors -o vit.safetensors)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<FuseOptions>();
            args.required("WEIGHTS", o->weights, "Weights file, or a run's folder for its last checkpoint");
            args.required("-o,--out", o->out, "File to write");
            args.option("--data", "DIR", o->data, "Data set to compare on; else the one it was trained on");
            args.option("--name", "SET", o->name, "mnist or fashion-mnist, which IDX files do not tell");
            args.option("--limit", o->limit, 1, "Images to compare on");
            args.option("--tolerance", o->tolerance, "Largest difference of logits, as part of the largest");
            args.option("--threads", o->threads, 0, "Threads; 0: all");
            args.flag("--json", o->json, "The result as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
