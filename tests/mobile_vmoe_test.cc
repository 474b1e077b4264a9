// Mobile V-MoE: the paper's counts, whole images through their experts, any cut of a batch, and runs of the
// program with super-classes.
#include "models/mobile_vmoe.h"

#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/fuse.h"
#include "models/registry.h"
#include "tests/data_files.h"
#include "tests/process.h"
#include "tests/small_models.h"
#include "tests/worst.h"
#include "train/replicas.h"

namespace tessera {
namespace {

using testing::random_images;
using testing::scramble;

// ---- counts, arXiv 2309.04354; the paper's FLOPs count element-wise work too

// DeiT-Ti/16 with experts in the last two layers.
ModelConfig ablation(int64_t k) {
  ModelConfig c = model_by_name("mobile_vmoe_tiny_patch16_224");
  c.moe.routing.k = k;
  return c;
}

TEST_CASE("FLOPs of fig. 3a: with one expert an image, those of the dense model") {
  struct Size {
    int64_t depth, dim;
    double paper;  // M
  };
  for (const Size& size : {Size{12, 384, 2297},
                           {9, 384, 1752},
                           {6, 384, 1207},
                           {12, 192, 618},
                           {9, 192, 478},
                           {6, 192, 338},
                           {12, 96, 176},
                           {9, 96, 140},
                           {6, 96, 103},
                           {12, 64, 88},
                           {9, 64, 71},
                           {6, 64, 54}}) {
    ModelConfig c = ablation(1);
    c.patch = 32;
    c.depth = size.depth;
    c.dim = size.dim;
    c.heads = size.dim == 64 ? 2 : size.dim == 384 ? 6 : 3;
    CAPTURE(size.depth);
    CAPTURE(size.dim);
    CHECK(double(cost(c).forward_flops) / 1e6 == doctest::Approx(size.paper).epsilon(0.03));
    ModelConfig dense = c;
    dense.architecture = "vit";
    dense.moe = {};
    CHECK(cost(c).forward_flops == cost(dense).forward_flops + 2 * size.dim * 10);  // the router
  }
}

TEST_CASE("FLOPs of fig. 3d: k experts an image") {
  for (const auto& [k, paper] :
       {std::pair<int64_t, double>{1, 2534}, {2, 2769}, {3, 3005}, {5, 3476}, {10, 4653}}) {
    CAPTURE(k);
    CHECK(double(cost(ablation(k)).forward_flops) / 1e6 == doctest::Approx(paper).epsilon(0.03));
    // The dense model beside it has MLPs k times as wide in the same two layers.
    ModelConfig dense = model_by_name("deit_tiny_patch16_224");
    dense.widen = {"final-2", k};
    CHECK(cost(ablation(k)).forward_flops == cost(dense).forward_flops + 2 * 192 * 10);  // the router
  }
}

TEST_CASE("section 3: 6.31M parameters of one image by image and up to 11.05M by token, and their FLOPs") {
  const ModelCost image = cost(ablation(2));
  CHECK(image.parameters - image.idle_parameters == 6311080);
  ModelConfig c = model_by_name("deit_tiny_patch16_224");
  c.moe.blocks = "final-2";
  c.moe.experts = 10;
  c.moe.router = MoeRouter::token;
  c.moe.routing.k = 2;
  const ModelCost token = cost(c);
  CHECK(token.parameters - token.idle_parameters == 11046952);
  // A token's k experts are as an MLP k times as wide; each of 197 tokens has scores.
  ModelConfig dense = model_by_name("deit_tiny_patch16_224");
  dense.widen = {"final-2", 2};
  CHECK(token.forward_flops == cost(dense).forward_flops + 2 * (2 * 197 * 192 * 10));
}

// ---- the model

ModelConfig small_vmoe(int64_t k = 1, int64_t experts = 3) {
  ModelConfig c = testing::small_vit("final-2");
  c.name = "small_mobile_vmoe";
  c.architecture = "mobile_vmoe";
  c.moe.experts = experts;
  c.moe.router = MoeRouter::image;
  c.moe.routing.k = k;
  return c;
}

TEST_CASE("parameters are counted as the model has them") {
  for (const int64_t k : {1, 2}) {
    const ModelConfig c = small_vmoe(k, 4);
    const MobileVmoe model(c, 0);
    CHECK(cost(c).parameters == model.parameters().parameter_count());
    CHECK(stacked_parameters(model).empty());  // experts of their own: nothing to average
  }
}

TEST_CASE("a batch is its images one by one, each a plain ViT with the weights of its expert") {
  ModelConfig c = small_vmoe();
  c.moe.routing.renormalize = true;  // a gate of 1
  c.moe.routing.vector = ImageVector::mean;
  MobileVmoe model(c, std::nullopt, DType::f64);
  scramble(model);
  const Tensor x = random_images(20, c, DType::f64);
  const Tensor together = model.forward(x, Pass{});

  // A dense model for each expert.
  ModelConfig dense_config = c;
  dense_config.architecture = "vit";
  dense_config.moe = {};
  std::vector<Tensor> by_expert;
  for (int64_t e = 0; e < c.moe.experts; ++e) {
    Vit dense(dense_config, std::nullopt, DType::f64);
    for (const auto& p : dense.parameters().parameters()) {
      const auto* own = model.parameters().find(p.name);
      std::string stacked = p.name;
      if (!own) stacked.replace(stacked.find(".mlp."), 5, ".moe.");
      const Tensor from = (own ? own : model.parameters().find(stacked))->value;
      Tensor to = p.value;
      std::copy_n(from.data<double>() + (own ? 0 : e * to.count()), to.count(), to.mutable_data<double>());
    }
    by_expert.push_back(dense.forward(x, Pass{}));
  }
  std::vector<int64_t> images_of(size_t(c.moe.experts), 0);
  for (int64_t b = 0; b < x.size(0); ++b) {
    const Tensor alone = model.forward(slice(x, 0, b, b + 1), Pass{});
    const Tensor own = slice(together, 0, b, b + 1);
    CHECK(difference(alone, own) <= 1e-13);
    int matches = 0;
    for (size_t e = 0; e < by_expert.size(); ++e)
      if (difference(slice(by_expert[e], 0, b, b + 1), own) <= 1e-12) {
        ++matches;
        ++images_of[e];
      }
    CHECK(matches == 1);
  }
  CHECK(std::count(images_of.begin(), images_of.end(), 0) < 2);  // more than one expert was needed
}

TEST_CASE("the router sees the class token or the mean of the patches") {
  for (const ImageVector vector : {ImageVector::cls, ImageVector::mean}) {
    ModelConfig c = small_vmoe(2);
    c.moe.routing.vector = vector;
    MobileVmoe model(c, std::nullopt, DType::f64);
    scramble(model);
    const Tensor x = random_images(3, c, DType::f64), all = model.forward(x, Pass{});
    for (int64_t b = 0; b < 3; ++b)
      CHECK(difference(model.forward(slice(x, 0, b, b + 1), Pass{}), slice(all, 0, b, b + 1)) <= 1e-13);
    ModelConfig other = c;
    other.moe.routing.vector = vector == ImageVector::cls ? ImageVector::mean : ImageVector::cls;
    MobileVmoe twin(other, std::nullopt, DType::f64);
    scramble(twin);
    CHECK(difference(twin.forward(x, Pass{}), all) > 1e-6);
  }
}

TEST_CASE("what is no Mobile V-MoE is refused") {
  const auto error = [](auto change) -> std::string {
    ModelConfig c = small_vmoe();
    change(c);
    try {
      validate(c);
    } catch (const Error& e) {
      CHECK(e.code() == Exit::usage);
      return e.what();
    }
    return "";
  };
  CHECK(error([](ModelConfig&) {}) == "");
  CHECK(error([](ModelConfig& c) { c.moe.blocks = "every-2"; }).find("must be the last layers") !=
        std::string::npos);
  CHECK(error([](ModelConfig& c) { c.moe.blocks = "final-4"; }).find("at least one dense layer") !=
        std::string::npos);
  CHECK(error([](ModelConfig& c) { c.moe.blocks = "none"; }).find("final-2 puts them") != std::string::npos);
  CHECK(error([](ModelConfig& c) {
          c.moe.router = MoeRouter::token;
        }).find("set it to image in a model of architecture mobile_vmoe") != std::string::npos);
  CHECK(error([](ModelConfig& c) {
          c.architecture = "vit";
        }).find("image is of the architecture mobile_vmoe, and not of vit") != std::string::npos);
  CHECK(error([](ModelConfig& c) { c.moe.routing.k = 4; }) == "model.moe.k = 4: must be from 1 to 3");
  CHECK(error([](ModelConfig& c) { c.moe.groups = "0,1,2"; }) ==
        "model.moe.groups has 3 entries for 5 classes");
  CHECK(error([](ModelConfig& c) { c.moe.groups = "0,1,2,0,3"; }) ==
        "model.moe.groups: 3 is none of the 3 experts");
  CHECK(error([](ModelConfig& c) { c.moe.groups = "0,1,x,0,0"; }).find("'x' is not a number") !=
        std::string::npos);
  CHECK(error([](ModelConfig& c) { c.moe.routing.load = -1; }).find("model.moe.load") != std::string::npos);
  const MobileVmoe model(small_vmoe(), 0);
  CHECK_THROWS_WITH_AS(
      fuse(model),
      "fuse: the experts of small_mobile_vmoe are chosen by a router, each for what it is; only those of a "
      "random partition have a mean that stands for all",
      Error);
}

// Gradients, losses and notes of one batch, in micro-batches of at most this many images.
struct Step {
  std::vector<float> gradient;
  StepResult result;
};
Step step_of(const ModelConfig& c, int64_t micro_batch, const std::vector<float>& soft) {
  const int64_t B = 12;
  const auto model = make_model(c, 1);
  const Tensor x = random_images(B, c);
  std::vector<int32_t> labels;
  for (int32_t b = 0; b < B; ++b) labels.push_back(b % 5);
  const std::span<const float> pixels(x.data<float>(), size_t(x.count()));
  Replicas replicas(*model, {.workers = 2, .micro_batch = micro_batch});
  Step step;
  step.result = replicas.compute_gradients({pixels, labels, B, soft}, Pass{.seed = 3, .step = 1}, 0.1);
  const float* g = replicas.gradients().data<float>();
  step.gradient.assign(g, g + model->parameters().count());
  return step;
}

TEST_CASE("however a batch is cut, its gradients are the same: every router, hard and soft targets") {
  std::vector<float> soft;
  for (int i = 0; i < 12 * 5; ++i)
    soft.push_back(i % 5 == (i / 5) % 5 ? 0.7f : i % 5 == (i / 5 + 2) % 5 ? 0.3f : 0);
  ModelConfig taught = small_vmoe(2), alone = small_vmoe(1), token = small_vmoe(2);
  taught.moe.groups = "0,1,2,1,0";
  taught.moe.routing.routes = TrainingRoutes::truth;
  alone.moe.routing.group = 4;
  token.architecture = "vit";
  token.moe.router = MoeRouter::token;
  token.moe.routing.group = 4;
  token.moe.routing.capacity = 0.5;
  token.moe.routing.batch_priority = true;
  for (ModelConfig c : {taught, alone, token}) {
    c.drop_path = 0.2;
    c.dropout = 0.1;
    for (const auto& targets : {std::vector<float>{}, soft}) {
      const Step whole = step_of(c, 12, targets);
      for (const int64_t micro : {1, 5}) {
        const Step cut = step_of(c, micro, targets);
        CHECK(cut.result.loss == doctest::Approx(whole.result.loss).epsilon(1e-5));
        CHECK(cut.result.auxiliary == doctest::Approx(whole.result.auxiliary).epsilon(1e-4));
        CHECK(whole.result.auxiliary > 0);
        double most = 0, largest = 0;
        for (size_t i = 0; i < whole.gradient.size(); ++i) {
          most = worst(most, std::abs(double(cut.gradient[i]) - double(whole.gradient[i])));
          largest = std::max(largest, std::abs(double(whole.gradient[i])));
        }
        CHECK(most <= 1e-5 * largest);
        REQUIRE(cut.result.notes.size() == whole.result.notes.size());
      }
      CHECK(whole.result.notes.count(c.moe.router == MoeRouter::token ? "blocks.2.moe.load"
                                                                      : "router.load") == 1);
    }
  }
}

// ---- runs of the program

// CIFAR-100 with 200 training and 100 test images, whose brightness tells the super-class: class k in k / 5.
struct Cifar {
  testing::TempFolder folder;

  Cifar() {
    for (const auto& [name, count] : {std::pair{"train.bin", 300}, {"test.bin", 100}}) {
      testing::ByteVector bytes;
      const Draw draw{.seed = 4};
      for (int i = 0; i < count; ++i) {
        bytes.push_back(uint8_t(i % 100 / 5));
        bytes.push_back(uint8_t(i % 100));
        for (int p = 0; p < 3072; ++p)
          bytes.push_back(uint8_t(12 * (i % 100 / 5) + draw.below(20, uint64_t(i * 3072 + p))));
      }
      folder.write(name, bytes);
    }
  }
  std::string path() const { return folder.path().string(); }
};

std::vector<std::string> train_command(const Cifar& set, const std::string& model, const std::string& out,
                                       const std::vector<std::string>& settings) {
  std::vector<std::string> words{"train", "--model", model, "--data", set.path(), "--out", out, "--quiet"};
  std::vector<std::string> all{"model.dim=16",   "model.depth=3",  "model.heads=2",   "model.patch=8",
                               "train.batch=32", "train.epochs=2", "train.threads=2", "data.limit=200"};
  all.insert(all.end(), settings.begin(), settings.end());
  for (const std::string& setting : all) {
    words.push_back("--set");
    words.push_back(setting);
  }
  return words;
}

nlohmann::json first_step(const std::string& folder) {
  std::istringstream log(Process::read(folder + "/log.jsonl"));
  std::string line;
  std::getline(log, line);
  return nlohmann::json::parse(line);
}

TEST_CASE("from a dense model's confusions to a Mobile V-MoE, by the program") {
  if (no_program()) return;
  const Cifar set;
  const ScratchFolder runs;
  const auto done = [](const std::vector<std::string>& words) {
    const Finished finished = run_program(words);
    INFO(finished.err);
    REQUIRE(finished.code == 0);
    return finished.out;
  };
  done(train_command(set, "vit_small_image_32", runs / "dense", {}));
  const auto grouped = nlohmann::json::parse(
      done({"superclass", runs / "dense", "--experts", "4", "-o", runs / "groups.toml", "--json"}));
  CHECK(grouped["first"] == 200);  // what the run did not train on
  CHECK(grouped["images"] == 100);
  REQUIRE(grouped["superclass"].size() == 100);
  const Finished all_seen =
      run_program({"superclass", runs / "dense/model.safetensors", "-o", runs / "x.toml"});
  CHECK(all_seen.code == 2);
  CHECK(all_seen.err.find("none are held out") != std::string::npos);
  done({"superclass", runs / "dense/model.safetensors", "--split", "test", "-o", runs / "x.toml"});

  done(train_command(set, "mobile_vmoe_small_image_32", runs / "file",
                     {"model.moe.experts=4", "model.moe.superclasses=" + (runs / "groups.toml")}));
  const Finished mixture = run_program({"superclass", runs / "file", "-o", runs / "x.toml"});
  CHECK(mixture.code == 2);
  CHECK(mixture.err.find("this is a mixture of experts; train a dense one") != std::string::npos);
  std::string list;
  for (const auto& group : grouped["superclass"]) list += (list.empty() ? "" : ",") + group.dump();
  CHECK(Process::read(runs / "file/config.toml").find("groups = \"" + list + "\"") != std::string::npos);

  done(train_command(set, "mobile_vmoe_small_image_32", runs / "coarse",
                     {"model.moe.experts=20", "model.moe.superclasses=coarse", "train.max_steps=3"}));
  const auto step = first_step(runs / "coarse");
  REQUIRE(step.contains("router.accuracy"));
  CHECK(step["router.load"].size() == 20);
  CHECK(step["auxiliary_loss"].get<double>() > 0.3 * 2);  // 0.3 ln 20 = 0.9 before anything is learned
  done({"train", "--resume", runs / "coarse", "--quiet"});
  const auto seen = nlohmann::json::parse(done({"eval", runs / "coarse", "--json"}));
  const double right = seen["router.accuracy"][0], images = seen["samples"];
  CHECK(right > 0);
  CHECK(std::abs(right * images - std::round(right * images)) < 1e-9);  // a share of all images
  CHECK(done({"eval", runs / "coarse"}).find("router") != std::string::npos);
  const Finished refused = run_program({"fuse", runs / "coarse", "-o", runs / "fused.safetensors"});
  CHECK(refused.code == 2);
}

TEST_CASE("a recipe's arm takes its super-classes from another arm's confusions") {
  if (no_program()) return;
  const Cifar set;
  const std::string toml = R"(
title = "a test"
[run.model]
name = "vit_small_image_32"
dim = 16
depth = 3
heads = 2
patch = 8
[run.train]
batch = 32
epochs = 1
[run.data]
limit = 200
[[arm]]
name = "dense"
[[arm]]
name = "mobile"
superclasses_from = "dense"
[arm.run.model]
architecture = "mobile_vmoe"
[arm.run.model.moe]
blocks = "final-1"
router = "image"
experts = 4
)";
  set.folder.write("r.toml", testing::ByteVector(toml.begin(), toml.end()));
  const std::vector<std::string> command{
      "reproduce", set.folder / "r.toml", "--data", set.path(), "--out", set.folder / "out", "--seeds",
      "1",         "--threads",           "2",      "-q"};
  const Finished finished = run_program(command);
  INFO(finished.err);
  REQUIRE(finished.code == 0);
  const std::string file = Process::read(set.folder / "out/r-tiny/mobile-seed0-superclasses.toml");
  CHECK(file.find("on 100 training images from 200 on") != std::string::npos);
  size_t groups = 0;
  for (size_t at = file.find("[[group]]"); at != std::string::npos; at = file.find("[[group]]", at + 1))
    ++groups;
  CHECK(groups == 4);
  CHECK(first_step(set.folder / "out/r-tiny/mobile-seed0").contains("router.accuracy"));
  std::string other = toml;
  other.replace(other.find("from = \"dense\""), 14, "from = \"sense\"");
  set.folder.write("other.toml", testing::ByteVector(other.begin(), other.end()));
  CHECK(run_program({"reproduce", set.folder / "other.toml", "--data", set.path()})
            .err.find("superclasses_from names no arm above: 'sense'") != std::string::npos);
}

TEST_CASE("a naive mixture of experts by the program, with experts that are averaged and that are not") {
  if (no_program()) return;
  const Cifar set;
  const ScratchFolder runs;
  for (const char* rate : {"0", "0.3"}) {
    const std::string out = runs / (std::string("rate-") + rate);
    const Finished finished =
        run_program(train_command(set, "vit_small_image_32", out,
                                  {"model.moe.blocks=every-2", "model.moe.router=token", "model.moe.k=2",
                                   "ewa.schedule=constant", std::string("ewa.share_rate=") + rate}));
    INFO(finished.err);
    REQUIRE(finished.code == 0);
    const auto step = first_step(out);
    const std::vector<double> load = step["blocks.1.moe.load"];
    CHECK(load.size() == 4);
    CHECK(load[0] + load[1] + load[2] + load[3] == doctest::Approx(1));
    CHECK(step["auxiliary_loss"].get<double>() > 0);
    CHECK(step["share_rate"] == std::stod(rate));
  }
}

}  // namespace
}  // namespace tessera
