#include "train/config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/augment/policy.h"
#include "engine/base/nearest_name.h"
#include "models/registry.h"
#include "train/toml.h"

namespace tessera {
namespace {

struct Setting {
  std::string key;
  nlohmann::json value;
  std::string place;  // for messages
};

constexpr size_t kLongestKey = 256;

void flatten(const toml::table& table, const std::string& prefix, const std::string& file,
             std::vector<Setting>& settings) {
  for (const auto& [name, node] : table) {
    const std::string key = prefix + std::string(name.str());
    const auto& begin = node.source().begin;
    const std::string place = text(file, ":", begin.line, ":", begin.column, ": ");
    TESSERA_CHECK_AS(Exit::usage, key.size() <= kLongestKey, place, "a key of ", key.size(),
                     " characters; none is as long");
    if (const auto* inner = node.as_table())
      flatten(*inner, key + ".", file, settings);
    else if (const auto* string = node.as_string())
      settings.push_back({key, string->get(), place});
    else if (const auto* integer = node.as_integer())
      settings.push_back({key, integer->get(), place});
    else if (const auto* number = node.as_floating_point())
      settings.push_back({key, number->get(), place});
    else if (const auto* flag = node.as_boolean())
      settings.push_back({key, flag->get(), place});
    else
      fail(Exit::usage, place, key,
           ": lists and dates are not used here; give a string, number, true or false");
  }
}

bool sets(const std::vector<Setting>& settings, const char* key) {
  return std::ranges::any_of(settings, [&](const Setting& setting) { return setting.key == key; });
}

// A registered model first, so that its other keys override it. A list of groups is what a source of
// super-classes gave for so many experts: settings that name another source or number have it found anew.
void apply_all(RunConfig& config, const std::vector<Setting>& settings) {
  const MoeConfig former = config.model.moe;
  for (const bool model_name : {true, false})
    for (const Setting& setting : settings) {
      if ((setting.key == "model.name") != model_name) continue;
      try {
        if (model_name) {
          std::string name;
          Field(setting.key, name).set(setting.value);
          const MoeConfig moe = config.model.moe;
          config.model = model_by_name(name);
          if (!config.model.is_moe()) config.model.moe = moe;  // a method, not part of the named model
        } else {
          set_field(fields(config), setting.key, setting.value);
        }
      } catch (const Error& error) {
        fail(Exit::usage, setting.place, error.what());
      }
    }
  MoeConfig& moe = config.model.moe;
  const bool found_anew = moe.superclasses != former.superclasses ||
                          (moe.superclasses != "none" && moe.experts != former.experts);
  if (found_anew && !sets(settings, "model.moe.groups")) moe.groups.clear();
}

}  // namespace

Fields fields(RunConfig& c) {
  static constexpr std::string_view kSchedules[] = {"cosine", "constant"};
  static constexpr std::string_view kShareRates[] = {"constant", "linear"};
  static constexpr std::string_view kFilters[] = {"bilinear", "bicubic"};
  static constexpr std::string_view kEraseModes[] = {"mean", "noise"};
  AugmentOptions& augment = c.data.augment;
  Fields all;
  for (const Field& field : fields(c.model)) all.push_back(field.under("model"));
  const Fields own{{"data.folder", c.data.folder},
                   {"data.name", c.data.name},
                   {"data.limit", c.data.limit},
                   {"data.test_limit", c.data.test_limit},
                   {"data.workers", c.data.workers},
                   {"data.padding", augment.padding},
                   {"data.flip", augment.flip},
                   {"data.augment.resized_crop", augment.resized_crop},
                   {"data.augment.least_area", augment.least_area},
                   {"data.augment.filter", augment.filter, kFilters},
                   {"data.augment.policy", augment.policy},
                   {"data.augment.jitter", augment.jitter},
                   {"data.augment.erase", augment.erase.probability},
                   {"data.augment.erase_largest", augment.erase.largest},
                   {"data.augment.erase_mode", augment.erase.mode, kEraseModes},
                   {"data.augment.mixup", c.data.mix.mixup},
                   {"data.augment.cutmix", c.data.mix.cutmix},
                   {"data.augment.mix", c.data.mix.probability},
                   {"data.augment.cutmix_share", c.data.mix.cutmix_share},
                   {"data.augment.repeats", c.data.repeats},
                   {"data.cloud.scale", c.data.cloud.scale},
                   {"data.cloud.shift", c.data.cloud.shift},
                   {"optim.name", c.optim.name},
                   {"optim.lr", c.schedule.lr},
                   {"optim.weight_decay", c.optim.weight_decay},
                   {"optim.beta1", c.optim.beta1},
                   {"optim.beta2", c.optim.beta2},
                   {"optim.eps", c.optim.eps},
                   {"optim.momentum", c.optim.momentum},
                   {"optim.nesterov", c.optim.nesterov},
                   {"optim.sam_rho", c.sam_rho},
                   {"optim.layer_decay", c.layer_decay},
                   {"schedule.kind", c.schedule.kind, kSchedules},
                   {"schedule.warmup_lr", c.schedule.warmup_lr},
                   {"schedule.min_lr", c.schedule.min_lr},
                   {"schedule.warmup_epochs", c.train.warmup_epochs},
                   {"ewa.share_rate", c.ewa.share_rate},
                   {"ewa.schedule", c.ewa.schedule, kShareRates},
                   {"ewa.ramp", c.ewa.ramp},
                   {"ewa.until", c.ewa.until},
                   {"train.init", c.train.init},
                   {"train.epochs", c.train.epochs},
                   {"train.max_steps", c.train.max_steps},
                   {"train.batch", c.train.batch},
                   {"train.accumulate", c.train.accumulate},
                   {"train.ema", c.train.ema},
                   {"train.seed", c.train.seed},
                   {"train.label_smoothing", c.train.label_smoothing},
                   {"train.clip", c.train.clip},
                   {"train.device", c.train.device},
                   {"train.dtype", c.train.dtype},
                   {"train.threads", c.train.threads},
                   {"train.micro_batch", c.train.micro_batch},
                   {"train.eval_every", c.train.eval_every},
                   {"train.checkpoint_every", c.train.checkpoint_every},
                   {"train.log_every", c.train.log_every}};
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

void apply_toml(RunConfig& config, const std::string& source, const std::string& file_name) {
  std::vector<Setting> settings;
  flatten(parse_toml(source, file_name), "", file_name, settings);
  apply_all(config, settings);
}

void apply_settings(RunConfig& config, const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::vector<Setting> settings;
  for (const auto& [key, value] : pairs) settings.push_back({key, value, ""});
  apply_all(config, settings);
}

std::string to_toml(const RunConfig& config) {
  std::ostringstream out;
  std::string section;
  const nlohmann::ordered_json settings = config_to_json(config);
  for (const auto& [key, value] : settings.items()) {
    const size_t dot = key.find('.');
    if (key.substr(0, dot) != section) {
      section = key.substr(0, dot);
      out << (out.tellp() > 0 ? "\n" : "") << '[' << section << "]\n";
    }
    out << key.substr(dot + 1) << " = " << toml_value(value) << '\n';
  }
  return out.str();
}

nlohmann::ordered_json config_to_json(const RunConfig& config) {
  RunConfig copy = config;  // fields could be written to
  return fields_to_json(fields(copy));
}

void validate(const RunConfig& c) {
  validate(c.model);
  const auto need = [](bool fits, const char* key, auto value, const char* rule) {
    TESSERA_CHECK_AS(Exit::usage, fits, key, " = ", value, ": ", rule);
  };
  need(c.train.epochs > 0 && c.train.epochs <= 1e6, "train.epochs", c.train.epochs, "must be above 0");
  need(c.train.max_steps >= 0, "train.max_steps", c.train.max_steps, "must not be negative");
  need(c.train.batch > 0 && c.train.batch <= 1 << 20, "train.batch", c.train.batch,
       "must be from 1 to 1048576");
  need(c.train.accumulate > 0 && c.train.accumulate <= (1 << 20) / c.train.batch, "train.accumulate",
       c.train.accumulate, "must be above 0, and at most 1048576 images a step");
  need(c.train.ema >= 0 && c.train.ema < 1, "train.ema", c.train.ema, "must be in [0,1)");
  need(c.sam_rho >= 0 && std::isfinite(c.sam_rho), "optim.sam_rho", c.sam_rho, "must not be negative");
  need(c.layer_decay > 0 && c.layer_decay <= 1, "optim.layer_decay", c.layer_decay, "must be in (0,1]");
  need(c.train.label_smoothing >= 0 && c.train.label_smoothing < 1, "train.label_smoothing",
       c.train.label_smoothing, "must be in [0,1)");
  need(c.train.clip >= 0, "train.clip", c.train.clip, "must not be negative");
  need(c.train.dtype == "f32" || c.train.dtype == "tf32" || c.train.dtype == "bf16", "train.dtype",
       c.train.dtype, "must be f32, tf32 or bf16");
  need(c.train.threads >= 0 && c.train.threads <= 4096, "train.threads", c.train.threads,
       "must be from 0 to 4096");
  need(c.train.micro_batch >= 0, "train.micro_batch", c.train.micro_batch, "must not be negative");
  need(c.train.eval_every > 0, "train.eval_every", c.train.eval_every, "must be above 0");
  need(c.train.checkpoint_every >= 0, "train.checkpoint_every", c.train.checkpoint_every,
       "must not be negative");
  need(c.train.log_every > 0, "train.log_every", c.train.log_every, "must be above 0");
  need(c.train.warmup_epochs >= 0 && c.train.warmup_epochs <= c.train.epochs, "schedule.warmup_epochs",
       c.train.warmup_epochs, "must be from 0 to train.epochs");
  need(std::isfinite(c.schedule.lr) && c.schedule.lr >= 0, "optim.lr", c.schedule.lr, "must not be negative");
  need(std::isfinite(c.schedule.min_lr) && c.schedule.min_lr >= 0, "schedule.min_lr", c.schedule.min_lr,
       "must not be negative");
  need(std::isfinite(c.schedule.warmup_lr) && c.schedule.warmup_lr >= 0, "schedule.warmup_lr",
       c.schedule.warmup_lr, "must not be negative");
  need(c.data.limit >= 0, "data.limit", c.data.limit, "must not be negative");
  need(c.data.test_limit >= 0, "data.test_limit", c.data.test_limit, "must not be negative");
  const AugmentOptions& augment = c.data.augment;
  const auto share = [&](const char* key, double value) {
    need(value >= 0 && value <= 1, key, value, "must be from 0 to 1");
  };
  need(augment.padding >= 0 && augment.padding <= 1024, "data.padding", augment.padding,
       "must be from 0 to 1024");
  need(augment.least_area > 0 && augment.least_area <= 1, "data.augment.least_area", augment.least_area,
       "must be in (0,1]");
  make_policy(augment.policy);
  share("data.augment.jitter", augment.jitter);
  share("data.augment.erase", augment.erase.probability);
  need(augment.erase.largest >= 0.02 && augment.erase.largest <= 1, "data.augment.erase_largest",
       augment.erase.largest, "must be from 0.02, which is the smallest area, to 1");
  const auto beta = [&](const char* key, double value) {
    need(value >= 0 && value <= 1000, key, value, "must be 0, which is off, or a Beta parameter up to 1000");
  };
  beta("data.augment.mixup", c.data.mix.mixup);
  beta("data.augment.cutmix", c.data.mix.cutmix);
  share("data.augment.mix", c.data.mix.probability);
  share("data.augment.cutmix_share", c.data.mix.cutmix_share);
  need(c.data.repeats >= 1 && c.data.repeats <= 1000, "data.augment.repeats", c.data.repeats,
       "must be from 1 to 1000");
  need(std::isfinite(c.data.cloud.scale) && c.data.cloud.scale >= 1, "data.cloud.scale", c.data.cloud.scale,
       "must be 1 or more");
  need(std::isfinite(c.data.cloud.shift) && c.data.cloud.shift >= 0, "data.cloud.shift", c.data.cloud.shift,
       "must not be negative");
  using Use = std::pair<const char*, bool>;
  const bool points = c.model.is_of_points();
  const std::vector<Use> foreign =
      points ? std::vector<Use>{{"data.flip", augment.flip},
                                {"data.padding", augment.padding > 0},
                                {"data.augment.resized_crop", augment.resized_crop},
                                {"data.augment.policy", augment.policy != "none"},
                                {"data.augment.jitter", augment.jitter > 0},
                                {"data.augment.erase", augment.erase.probability > 0},
                                {"data.augment.mixup", c.data.mix.mixup > 0},
                                {"data.augment.cutmix", c.data.mix.cutmix > 0}}
             : std::vector<Use>{{"data.cloud.scale", c.data.cloud.scale != 1},
                                {"data.cloud.shift", c.data.cloud.shift != 0}};
  for (const auto& [key, used] : foreign)
    TESSERA_CHECK_AS(Exit::usage, !used, key, ": not for ", points ? "point clouds" : "images",
                     ", which a model of architecture ", c.model.architecture, " takes; leave it out");
  need(c.data.workers >= 0 && c.data.workers <= 256, "data.workers", c.data.workers, "must be from 0 to 256");
  need(c.ewa.ramp > 0 && c.ewa.ramp <= 1, "ewa.ramp", c.ewa.ramp, "must be in (0,1]");
  need(c.ewa.until >= 0 && c.ewa.until <= 1, "ewa.until", c.ewa.until, "must be in [0,1]");
  if (c.model.is_moe()) {
    const double E = double(c.model.moe.experts), limit = (E - 1) / E;
    need(c.ewa.share_rate >= 0 && c.ewa.share_rate <= limit, "ewa.share_rate", c.ewa.share_rate,
         "must be from 0 to (E-1)/E, beyond which experts would step past their mean");
  }
  make_optimizer<float>(c.optim, 0);
}

const std::vector<Preset>& presets() {
  // The demo's settings are ours. CIFAR-100: "Vision Transformer for Small-Size Datasets" (arXiv 2112.13492)
  // without its AutoAugment, Mixup, CutMix and random erasing.
  static const std::string fashion = R"(
[model]
name = "vit_small_image_28"
patch = 7
dim = 64
depth = 6
heads = 4
drop_path = 0.0
[data]
folder = "/usr/share/datasets/fashion-mnist"
[optim]
lr = 0.003
[schedule]
warmup_epochs = 0.5
[train]
epochs = 3
label_smoothing = 0.0
)";
  static const std::string cifar_images = R"(
[data]
folder = "data/cifar-100-binary"
flip = true
padding = 4
)";
  static const std::string cifar = cifar_images + R"(
[model]
name = "vit_small_image_32"
[schedule]
warmup_epochs = 10
[train]
epochs = 100
)";
  // All of that paper's public recipe. Its epoch is three passes over the images, so its 100 epochs are 300
  // here.
  static const std::string cifar_full = cifar_images + R"(
[model]
name = "vit_small_image_32"
[data.augment]
policy = "cifar10"
erase = 0.25
erase_largest = 0.4
erase_mode = "mean"
mixup = 1.0
cutmix = 1.0
mix = 0.5
[schedule]
warmup_epochs = 30
[train]
epochs = 300
)";
  // Ours: minutes on one core.
  static const std::string cifar_tiny = cifar_images + R"(
limit = 10000
test_limit = 2000
[model]
name = "vit_small_image_32"
patch = 8
dim = 64
depth = 6
heads = 4
[schedule]
warmup_epochs = 1
[train]
epochs = 5
)";
  static const std::string imagenet_images = R"(
[data]
folder = "data/imagenet"
flip = true
workers = 16
[data.augment]
resized_crop = true
)";
  // DeiT (arXiv 2012.12877). Its jitter of 0.3 is inactive beside RandAugment.
  static const std::string deit = imagenet_images + R"(
policy = "rand-m9-mstd0.5-inc1"
erase = 0.25
mixup = 0.8
cutmix = 1.0
repeats = 3
[model]
name = "deit_tiny_patch16_224"
drop_path = 0.1
[optim]
lr = 0.001
weight_decay = 0.05
[schedule]
warmup_epochs = 5
warmup_lr = 1e-6
min_lr = 1e-5
[train]
epochs = 300
batch = 1024
ema = 0.99996
)";
  // ViT's own (arXiv 2010.11929), as we recall it: 10,000 steps of warm-up are 32 epochs.
  static const std::string vit = imagenet_images + R"(
policy = "none"
erase = 0.0
mixup = 0.0
cutmix = 0.0
repeats = 1
[model]
name = "vit_tiny_patch16_224"
drop_path = 0.0
dropout = 0.1
[optim]
lr = 3e-3
weight_decay = 0.3
[schedule]
warmup_epochs = 32
min_lr = 0.0
[train]
epochs = 300
batch = 4096
label_smoothing = 0.0
clip = 1.0
ema = 0.0
)";
  static const std::string experts = R"(
[model.moe]
blocks = "every-2"
)";
  static const std::vector<Preset> list{
      {"fashion-mnist", "the demo: a small ViT on Fashion-MNIST, dense", fashion},
      {"fashion-mnist-ewa", "the same with random-partition experts, averaged every step", fashion + experts},
      {"cifar100", "ViT on CIFAR-100: 100 epochs, AdamW, crop and flip", cifar},
      {"cifar100-ewa", "the same with random-partition experts, averaged every step", cifar + experts},
      {"cifar100-full", "the published recipe for small images: 300 epochs, all augmentations", cifar_full},
      {"cifar100-tiny", "a fifth of the images, a small model and 5 epochs: what recipes take as tiny",
       cifar_tiny},
      {"deit-imagenet", "DeiT-Ti on ImageNet as an image folder: 300 epochs, all augmentations", deit},
      {"vit-imagenet", "ViT-Ti by ViT's own recipe: 300 epochs, dropout, few augmentations", vit},
  };
  return list;
}

const Preset& preset_by_name(const std::string& name) {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) {
    if (preset.name == name) return preset;
    names.push_back(preset.name);
  }
  fail(Exit::usage, "preset '", name, "' is not known; did you mean '", nearest_name(name, names),
       "'? `tessera list presets` shows all");
}

}  // namespace tessera
