// Models by name, their configuration and files, fusing, and a batch computed in pieces.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "models/block.h"
#include "models/fuse.h"
#include "models/registry.h"
#include "models/vit.h"
#include "models/weights.h"
#include "tests/messages.h"
#include "tests/scratch_folder.h"
#include "tests/small_models.h"
#include "tests/worst.h"

namespace tessera {
namespace {

using testing::Caught;
using testing::error_of;
using testing::names_and_shapes;
using testing::random_images;
using testing::scramble;
using testing::small_vit;

int64_t parameter_count(const Model& model) { return model.parameters().parameter_count(); }

TEST_CASE("registered models have the published numbers of parameters") {
  const std::pair<const char*, int64_t> known[] = {
      {"tiny", 5717416}, {"small", 22050664}, {"base", 86567656}};
  for (const auto& [size, count] : known) {
    ModelConfig c = model_by_name(std::string("vit_") + size + "_patch16_224");
    CAPTURE(c.name);
    ModelConfig deit = model_by_name(std::string("deit_") + size + "_patch16_224");
    CHECK(deit.drop_path == 0.1);
    deit.drop_path = 0;
    deit.name = c.name;
    CHECK(config_to_json(deit) == config_to_json(c));
    // From one and two blocks, since drawing the weights of all takes its time.
    const int64_t depth = std::exchange(c.depth, 1), one = parameter_count(Vit(c, 0));
    c.depth = 2;
    CHECK(one + (depth - 1) * (parameter_count(Vit(c, 0)) - one) == count);
  }
  // Counted by hand, block by block: norms, qkv without bias, projection, MLP.
  const int64_t D = 192, block = 4 * D + 3 * D * D + (D * D + D) + (2 * D * D + 2 * D) + (2 * D * D + D);
  CHECK(parameter_count(Vit(model_by_name("vit_small_image_32"), 0)) ==
        9 * block + D + 65 * D + (48 * D + D) + 2 * D + 100 * D + 100);
}

TEST_CASE("a dense model has exactly timm's keys and shapes") {
  std::set<std::string> timm{
      "cls_token(1,1,192)",         "pos_embed(1,197,192)", "patch_embed.proj.weight(192,3,16,16)",
      "patch_embed.proj.bias(192)", "norm.weight(192)",     "norm.bias(192)",
      "head.weight(1000,192)",      "head.bias(1000)"};
  for (int i = 0; i < 12; ++i)
    for (const char* key :
         {"norm1.weight(192)", "norm1.bias(192)", "attn.qkv.weight(576,192)", "attn.qkv.bias(576)",
          "attn.proj.weight(192,192)", "attn.proj.bias(192)", "norm2.weight(192)", "norm2.bias(192)",
          "mlp.fc1.weight(768,192)", "mlp.fc1.bias(768)", "mlp.fc2.weight(192,768)", "mlp.fc2.bias(192)"})
      timm.insert(text("blocks.", i, ".", key));
  const Vit model(model_by_name("vit_tiny_patch16_224"), 0);
  CHECK(timm.size() == 152);
  CHECK(names_and_shapes(model) == timm);
  for (const auto& p : model.parameters().parameters())  // timm's rule
    CHECK_MESSAGE(p.decay == (p.value.rank() > 1 && p.name != "cls_token" && p.name != "pos_embed"), p.name);
}

TEST_CASE("an unknown model is answered with the nearest name") {
  const Caught e = error_of([] { model_by_name("vit_tyni_patch16_224"); });
  CHECK(e.code == Exit::usage);
  CHECK(e.has("did you mean 'vit_tiny_patch16_224'"));
  for (const RegisteredModel& model : registered_models()) {
    CHECK(model.name == model_by_name(model.name).name);
    CHECK_NOTHROW(validate(model.config));
  }
}

TEST_CASE("placements of experts") {
  using Ids = std::vector<int64_t>;
  CHECK(moe_blocks("none", 12) == Ids{});
  CHECK(moe_blocks("every-2", 9) == Ids{1, 3, 5, 7});
  CHECK(moe_blocks("every-3", 9) == Ids{2, 5, 8});
  CHECK(moe_blocks("every-1", 3) == Ids{0, 1, 2});
  CHECK(moe_blocks("last-2", 12) == Ids{9, 11});
  CHECK(moe_blocks("last-1", 9) == Ids{7});
  CHECK(moe_blocks("5,1,3,1", 6) == Ids{1, 3, 5});
  const std::pair<const char*, const char*> wrong[] = {
      {"every-0", "names no block"},      {"every-13", "names no block"},
      {"last-0", "names no block"},       {"last-7", "only 6 odd blocks"},
      {"12", "block 12 does not exist"},  {"1,,2", "'' is not a number"},
      {"1, 2", "' 2' is not a number"},   {"", "'' is not a number"},
      {"every-x", "'x' is not a number"}, {"-1", "'-1' is not a number"},
      {"some", "'some' is not a number"}, {"00000000000000000001", "is not a number"}};
  for (const auto& wrong_one : wrong) {
    const char* const placement = wrong_one.first;
    CAPTURE(placement);
    const Caught e = error_of([&] { moe_blocks(placement, 12); });
    CHECK(e.code == Exit::usage);
    CHECK_MESSAGE(e.has(wrong_one.second), e.message);
  }
}

TEST_CASE("the MLPs that a model widens, dense or of experts") {
  ModelConfig c = small_vit();
  c.widen = {"final-2", 3};
  c.moe.blocks = "3";
  const auto model = make_model(c, 0);
  const auto hidden = [&](const std::string& name) { return model->parameters().find(name)->value.size(-2); };
  CHECK(hidden("blocks.1.mlp.fc1.weight") == c.hidden(c.dim));
  CHECK(hidden("blocks.2.mlp.fc1.weight") == 3 * c.hidden(c.dim));
  CHECK(hidden("blocks.3.moe.fc1.weight") == 3 * c.hidden(c.dim));
  c.widen.blocks = "final-9";
  CHECK(
      error_of([&] { validate(c); }).has("model.widen.blocks 'final-9': a model of depth 4 has no 9 blocks"));
  c.widen = {"1", 0};
  CHECK(error_of([&] { validate(c); }).has("model.widen.times = 0: must be from 1 to 64"));
  c = model_by_name("rep_vgg_small_image_32");
  c.widen = {"none", 2};
  CHECK(error_of([&] {
          validate(c);
        }).has("model.widen.times = 2: model.widen.blocks = none widens no MLP; set it to such as final-2"));
  c.widen = {"1", 2};
  CHECK(error_of([&] { validate(c); }).has("has no MLPs"));
}

TEST_CASE("drop path rises over the depth to its rate, or is the same everywhere") {
  ModelConfig c = small_vit();
  c.drop_path = 0.3;
  for (int64_t id = 0; id < 4; ++id) CHECK(drop_path_rate(c, id) == doctest::Approx(0.1 * double(id)));
  c.drop_path_linear = false;
  for (int64_t id = 0; id < 4; ++id) CHECK(drop_path_rate(c, id) == 0.3);
  c.drop_path_linear = true;
  c.depth = 1;
  CHECK(drop_path_rate(c, 0) == 0.3);
}

TEST_CASE("stages take their depths and heads from lists, and their widths double") {
  ModelConfig c = small_vit();
  CHECK(stages(c).size() == 1);
  CHECK(total_depth(c) == 4);
  c.depth = c.heads = 0;
  c.depths = "2,6,4";
  c.stage_heads = "2,3,12";
  const std::vector<Stage> three = stages(c);
  CHECK(three.size() == 3);
  CHECK(total_depth(c) == 12);
  CHECK(three[1].depth == 6);
  CHECK(three[1].heads == 3);
  CHECK(three[2].dim == 48);

  const auto message = [](auto&& change) {
    ModelConfig wrong = small_vit();
    change(wrong);
    const Caught e = error_of([&] { validate(wrong); });
    CHECK(e.code == Exit::usage);
    return e.message;
  };
  CHECK(message([](auto& c) { c.depths = "2,2"; }) ==
        "model.depth = 4 and model.heads = 3: must be 0 where model.depths = 2,2 and model.stage_heads give "
        "them by stage");
  CHECK(message([](auto& c) { c.stage_heads = "2,2"; }) ==
        "model.stage_heads = 2,2: heads by stage need model.depths, a list such as 2,6,4");
  const auto staged = [&](const char* depths, const char* heads) {
    return message([&](auto& c) {
      c.depth = c.heads = 0;
      c.depths = depths;
      c.stage_heads = heads;
    });
  };
  CHECK(
      staged("2,2", "2,3,4") ==
      "model.depths = 2,2 has 2 stages and model.stage_heads = 2,3,4 has 3; both must have the same number, "
      "at most 16");
  CHECK(staged("2,x", "2,3") == "model.depths '2,x': 'x' is not a number; it is a list such as 2,6,4");
  CHECK(staged("2,0", "2,3") == "model.depths = 0: must be from 1 to 1024");
  CHECK(staged("2,2", "3,5") == "model.heads = 5 does not divide dim = 24");
  CHECK(staged("1,1,1,1,1,1,1,1,1,1,1", "1,1,1,1,1,1,1,1,1,1,1") ==
        "model.dim = 12288: must be from 1 to 8192");
  CHECK(staged("2,2", "2,3") ==
        "model.depths = '2,2': a model of architecture vit has no stages; model.depth gives its depth");
}

TEST_CASE("a configuration survives JSON, and wrong keys and values are named") {
  ModelConfig c = small_vit("1,3");
  c.mlp_ratio = 0.1 + 0.2;
  c.qkv_bias = false;
  c.init = WeightInit::xavier;
  c.moe.init = ExpertInit::alike;
  c.moe.partition = PartitionScope::per_image;
  const std::string json = config_to_json(c).dump();
  ModelConfig back;
  fields_from_json(fields(back), json);
  CHECK(config_to_json(back).dump() == json);
  CHECK(back.mlp_ratio == c.mlp_ratio);
  CHECK(back.moe.partition == PartitionScope::per_image);

  const auto error = [&](const char* text) {
    return error_of([&] { fields_from_json(fields(back), text); });
  };
  CHECK(error(R"({"dept": 3})").has("the key 'dept' is not known; did you mean 'depth'?"));
  CHECK(error(R"({"depth": 3.5})").has("depth = 3.5: not an integer"));
  CHECK(error(R"({"depth": 18446744073709551615})").has("not an integer"));
  CHECK(error(R"({"init": "javier"})").has("not one of trunc-normal, xavier"));
  CHECK(error(R"({"qkv_bias": 1})").has("not true or false"));
  CHECK(error("[]").has("not a JSON object"));
  CHECK(error(R"({"mlp_ratio": "1e999"})").has("not a number"));
  const std::string half(1 << 20, '['), deep = half + std::string(half.size(), ']');
  CHECK(error(text(R"({"name": )", deep, "}").c_str()).has("name: a list or an object"));
  CHECK(error(text(R"({"depth": )", deep, "}").c_str()).has("depth: a list or an object"));
  CHECK(error(text("{\"", std::string(1 << 20, 'x'), "\": 1}").c_str()).has("xxx...' is not known"));
  const auto flag = [&](const char* key, const char* value) {
    return error_of([&] { set_field(fields(back), key, value); });
  };
  const std::string long_text(1 << 20, 'x');
  CHECK(flag("depth", long_text.c_str()).message.size() < 200);
  CHECK(flag("depth", "\xff").has("not an integer"));
  CHECK(flag("name", "\xff").has("not text in UTF-8"));
  CHECK(flag("name", "\x7f").has("not text in UTF-8 without control characters"));
  set_field(fields(back), "depth", "7");  // as from a flag
  CHECK(back.depth == 7);

  const auto invalid = [](auto&& change) {
    ModelConfig c = small_vit();
    change(c);
    const Caught e = error_of([&] { validate(c); });
    CHECK(e.code == Exit::usage);
    return e.message;
  };
  c.patch = 3;
  CHECK(error_of([&] { Vit(c, 0); }).has("model.patch = 3"));
  CHECK(invalid([](auto& c) { c.patch = 3; }) == "model.patch = 3 does not divide image_size = 8");
  CHECK(invalid([](auto& c) { c.heads = 5; }) == "model.heads = 5 does not divide dim = 12");
  CHECK(invalid([](auto& c) { c.depth = 0; }) == "model.depth = 0: must be from 1 to 1024");
  CHECK(invalid([](auto& c) { c.drop_path = 1; }) == "model.drop_path = 1: must be in [0,1)");
  CHECK(invalid([](auto& c) { c.mlp_ratio = std::nan(""); }) ==
        "model.mlp_ratio = nan: must be above 0 and at most 64");
  CHECK(invalid([](auto& c) {
          c.dim = 8190;
          c.mlp_ratio = 5;
          c.moe.experts = c.moe.routing.k = 16;
        }) ==
        "model.mlp_ratio = 5, model.widen.times = 1 and model.moe.k = 16: make 655200 hidden channels of "
        "dim = 8190; at most 524288 are possible");
  CHECK(invalid([](auto& c) {
          c.architecture = "cait";
          c.image_size = 255;
          c.patch = 1;
          c.dim = c.heads = 130;
        }) ==
        "model.heads = 130: cait mixes the heads of 65026 tokens, 8453380 in all; at most 8388608 are "
        "possible");
  CHECK(invalid([](auto& c) { c.moe.blocks = "0,0,0,0,0,0,0,0,0"; }) ==
        "model.moe.blocks names 9 blocks of a model of depth 4");
}

bool same_bits(const Model& a, const Model& b) {
  return same_bits(a.parameters().flat(), b.parameters().flat());
}

TEST_CASE("first weights depend on the seed and each parameter's name alone") {
  const ModelConfig c = small_vit("1");
  CHECK(same_bits(Vit(c, 1), Vit(c, 1)));
  CHECK_FALSE(same_bits(Vit(c, 1), Vit(c, 2)));
  const Vit dense(small_vit(), 1), moe(c, 1);
  const auto value = [](const Model& model, const char* name) {
    return model.parameters().find(name)->value;
  };
  CHECK(value(dense, "head.weight").at(3) == value(moe, "head.weight").at(3));
  const Tensor experts = value(moe, "blocks.1.moe.fc1.weight");
  CHECK(experts.shape() == Shape{4, 24, 12});
  CHECK(experts.at(0) != experts.at(24 * 12));
  ModelConfig alike = c;
  alike.moe.init = ExpertInit::alike;
  const Tensor equal = value(Vit(alike, 1), "blocks.1.moe.fc1.weight");
  CHECK(equal.at(5) == equal.at(24 * 12 + 5));
}

TEST_CASE("a saved model loads to the bit, with its configuration") {
  const ScratchFolder folder;
  const std::string path = folder / "model.safetensors";
  for (const char* placement : {"none", "every-2"}) {
    Vit model(small_vit(placement), 1);
    scramble(model);
    save_model(path, model, {{"note", "kept"}});
    const SafetensorsFile file(path);
    CHECK(file.metadata().at("note") == "kept");
    const auto back = load_model(file);
    CHECK(config_to_json(back->config()) == config_to_json(model.config()));
    CHECK(same_bits(*back, model));
  }
}

TEST_CASE("a file of timm names its own configuration") {
  const ScratchFolder folder;
  ModelConfig c = small_vit();
  c.dim = 128;  // timm's heads have 64 channels
  c.heads = 2;
  c.mlp_ratio = 3;
  const Vit model(c, 1);
  SafetensorsWriter writer;
  for (const auto& p : model.parameters().parameters())
    writer.add("module." + p.name, {p.value.shape().begin(), p.value.shape().end()}, p.value.data<float>());
  writer.write(folder / "timm.safetensors");
  const auto back = load_model(SafetensorsFile(folder / "timm.safetensors"));
  CHECK(same_bits(*back, model));
  CHECK(back->config().heads == 2);
  CHECK(back->config().mlp_ratio == 3);
}

TEST_CASE("all that does not fit is listed in one error") {
  const ScratchFolder folder;
  save_model(folder / "model.safetensors", Vit(small_vit(), 1), {});
  const SafetensorsFile file(folder / "model.safetensors");
  ModelConfig other = small_vit();
  other.depth = 3;
  other.classes = 6;
  other.moe.blocks = "1";
  const Caught e = error_of([&] { load_model(file, other); });
  CHECK(e.code == Exit::file);
  CHECK(e.has(folder / "model.safetensors"));
  CHECK(e.has("\n  head.weight: (5,12) in the file, (6,12) in the model"));
  CHECK(e.has("\n  missing: blocks.1.moe.fc1.weight(4,24,12)"));
  CHECK(e.has("\n  not of this model: 'blocks.1.mlp.fc1.weight'(24,12)"));
  CHECK(e.has("\n  not of this model: 'blocks.3.norm1.bias'(12)"));
}

TEST_CASE("a fused model is a plain ViT and the same function as its experts' mean") {
  Vit model(small_vit("every-2"), 1);
  scramble(model);
  const Tensor x = random_images(3, model.config());
  const auto fused = fuse(model);
  CHECK(names_and_shapes(*fused) == names_and_shapes(Vit(small_vit(), 0)));
  CHECK_FALSE(fused->config().is_moe());
  CHECK(output_difference(model, *fused, x) > 0.01);  // experts that differ are another function
  set_experts_to_mean(model);
  CHECK(output_difference(model, *fused, x) <= 2e-6);

  const Tensor experts = model.parameters().find("blocks.3.moe.fc2.weight")->value;
  const Tensor mean = fused->parameters().find("blocks.3.mlp.fc2.weight")->value;
  for (int64_t i = 0; i < experts.count(); ++i) REQUIRE(experts.at(i) == mean.at(i % mean.count()));
  CHECK(same_bits(*fuse(*fused), *fused));
}

TEST_CASE("the difference of two models does not hide a NaN") {
  Vit a(small_vit(), 1), b(small_vit(), 1);
  Tensor bias = b.parameters().find("head.bias")->value;
  const Tensor x = random_images(2, a.config());
  CHECK(output_difference(a, b, x) == 0);
  bias.mutable_data<float>()[0] = NAN;
  CHECK(std::isnan(output_difference(a, b, x)));
}

TEST_CASE("a batch in pieces gives the logits and gradients of the whole batch") {
  constexpr int64_t kB = 7;
  for (ModelConfig c : testing::small_models("every-2")) {
    CAPTURE(c.name);
    c.drop_path = 0.3;
    c.dropout = 0.2;
    const auto owner = make_model(c, 1, DType::f64);
    Model& model = *owner;
    scramble(model);
    const Tensor x = random_images(kB, c, DType::f64);
    const auto gradients = model.parameters().make_gradients();
    const ParameterGradients::Scope collect(*gradients);
    // The logits of all samples; their weighted sum is differentiated piece by piece.
    const auto run = [&](const std::vector<int64_t>& cuts, bool training) {
      gradients->clear();
      std::vector<double> logits;
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        const Pass pass{.training = training, .seed = 3, .step = 9, .first_sample = cuts[i], .batch = kB};
        Tape tape;
        const Tape::Scope record(&tape);
        const Tensor y = model.forward(slice(x, 0, cuts[i], cuts[i + 1]), pass);
        Tensor weights = like(y);
        for (int64_t j = 0; j < y.count(); ++j) {
          logits.push_back(y.at(j));
          weights.mutable_data<double>()[j] = std::sin(double(cuts[i] * c.classes + j));
        }
        tape.backward(mean(mul(y, weights)), double(y.count()));
      }
      gradients->fill_unwritten(model.parameters().gradient_counts());
      const double* flat = gradients->flat().data<double>();
      return std::pair{logits, std::vector<double>(flat, flat + model.parameters().count())};
    };
    const auto apart = [](const std::vector<double>& a, const std::vector<double>& b) {
      REQUIRE(a.size() == b.size());
      double most = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        REQUIRE(std::isfinite(a[i]));
        most = std::max(most, std::abs(a[i] - b[i]));
      }
      return most;
    };
    const auto whole = run({0, kB}, true);
    for (const std::vector<int64_t>& cuts :
         {std::vector<int64_t>{0, 3, kB}, {0, 1, 2, 6, kB}, {0, 1, 2, 3, 4, 5, 6, 7}}) {
      const auto pieces = run(cuts, true);
      CHECK(apart(pieces.first, whole.first) <= 1e-12);
      CHECK(apart(pieces.second, whole.second) <= 1e-11);
    }
    CHECK(apart(run({0, kB}, false).first, whole.first) > 0.01);  // the noise was there
  }
}

TEST_CASE("a pass shows every module's output, and images of another size are refused") {
  const Vit model(small_vit("1"), 1);
  std::vector<std::string> seen;
  Pass pass{.batch = 2};
  pass.watch = [&](const std::string& module, const Tensor&) { seen.push_back(module); };
  model.forward(random_images(2, model.config()), pass);
  REQUIRE(seen.size() == 10);
  CHECK(seen.front() == "patch_embed");
  CHECK(seen[3] == "blocks.1.attn");
  CHECK(seen.back() == "head");
  CHECK(error_of([&] {
          model.forward(Tensor::zeros({2, 1, 8, 8}), pass);
        }).message == "vit: images(2,1,8,8) for a model of 3 channels and 8 x 8 pixels");
}

}  // namespace
}  // namespace tessera
