#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "cuda/devices.h"
#include "data/image_set.h"
#include "engine/base/parallel.h"
#include "models/adapt.h"
#include "train/checkpoint.h"
#include "train/log.h"
#include "train/progress.h"
#include "train/signals.h"
#include "train/steps.h"
#include "train/superclass.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string fixed(double value, int digits) {
  char out[64];
  std::snprintf(out, sizeof out, "%.*f", digits, value);
  return out;
}

// The device of the configuration; says so where `auto` finds no card that the build could use.
Device chosen_device(const RunConfig& config, bool show) {
  std::string why_none;
  const Device device = device_by_name(config.train.device, &why_none);
  if (show && !why_none.empty()) std::fprintf(stderr, "%s: using the CPU\n", why_none.c_str());
  return device;
}

// One split, which has what the model takes.
Dataset load_fitting(const RunConfig& config, Split split) {
  Dataset data = load_dataset(config.data.folder, split, config.data.name);
  check_fit(config.model, data);
  return data;
}

// One run from a state to its end, all of it on one device.
class Run {
 public:
  Run(const RunConfig& config, const std::string& folder, Progress progress);

  // Fine-tuning: starts from these weights, and says how they were changed.
  void start_from(const SafetensorsFile& weights);
  // Goes on from a checkpoint; `max_steps` as in resume().
  void load(const SafetensorsFile& checkpoint, int64_t max_steps);
  void save();
  RunResult run();

 private:
  using Done = TrainingSteps::Done;

  void start_clock();
  void note_graph();
  void finish(const std::optional<Done>& done);
  Evaluation evaluated();
  void evaluate_test();
  bool epoch_ends() const;  // the epoch's last step is done, and the epoch not yet evaluated
  void end_epoch();
  Metadata metadata() const;
  void log_step(const Done& done, double seconds, double waited);
  [[noreturn]] void diverged(const Done& done);

  RunConfig config_;
  RunFiles files_;
  bool show_;
  Device device_;
  Device::Scope on_device_;
  Dataset train_set_, test_set_;
  Normalization normalization_;
  std::unique_ptr<Model> model_;
  Loader loader_;
  std::unique_ptr<TrainingSteps> steps_;
  int64_t total_steps_, last_step_, tested_step_ = -1, saved_step_ = -1;
  RunState state_;
  RunResult result_;
  nlohmann::ordered_json start_;  // the log's line for the weights that it started from
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<ProgressLine> progress_;
  bool graph_noted_ = false;
  Clock::time_point clock_;  // from when on the next step counts its time
  double waited_ = 0;        // how long there had been waited for data by then
};

Run::Run(const RunConfig& config, const std::string& folder, Progress progress)
    : config_(config),
      files_{folder},
      show_(progress != Progress::quiet),
      device_(chosen_device(config, show_)),
      on_device_(device_),
      train_set_(load_fitting(config, Split::train)),
      test_set_(load_fitting(config, Split::test)),
      normalization_(normalization(train_set_.name)),
      model_(make_model(config.model, config.train.seed)),
      loader_(train_set_, training_options(config, model_->input_shape(), normalization_)) {
  if (show_)
    for (const auto& [set, limit] :
         {std::pair{&train_set_, config.data.limit}, {&test_set_, config.data.test_limit}}) {
      for (const std::string& note : set->notes) std::fprintf(stderr, "note: %s\n", note.c_str());
      if (const int64_t without = set->classes_without(limit))
        std::fprintf(stderr, "note: %s\n",
                     text(without, " of the ", set->classes(), " classes of ", set->name, " have no ",
                          set == &train_set_ ? "training" : "test", " sample among those that are used")
                         .c_str());
    }
  const double per_epoch = double(loader_.steps_per_epoch());
  total_steps_ = std::max<int64_t>(1, std::llround(config_.train.epochs * per_epoch));
  last_step_ = config_.train.max_steps > 0 ? std::min(total_steps_, config_.train.max_steps) : total_steps_;
  config_.schedule.warmup_steps = std::llround(config_.train.warmup_epochs * per_epoch);
  config_.schedule.total_steps = total_steps_;
  steps_ = std::make_unique<TrainingSteps>(config_, *model_, total_steps_);
  state_.data_fingerprint = train_set_.fingerprint();
}

void Run::start_from(const SafetensorsFile& weights) {
  ParameterStore& store = model_->parameters();
  store.move_to(Device());
  const std::vector<std::string> changes = [&] {
    const Device::Scope host{Device()};
    return tessera::start_from(*model_, weights);
  }();
  store.move_to(device_);
  steps_->start_ema();
  start_ = {{"kind", "start"}, {"step", 0}, {"weights", weights.name()}, {"changes", changes}};
  if (!show_) return;
  std::fprintf(stderr, "weights from %s\n", weights.name().c_str());
  for (const std::string& change : changes) std::fprintf(stderr, "  %s\n", change.c_str());
}

void Run::load(const SafetensorsFile& checkpoint, int64_t max_steps) {
  const uint64_t own = state_.data_fingerprint;
  state_ = load_checkpoint(checkpoint, *model_, steps_->buffers());
  steps_->optimizer().set_steps(state_.optimizer_steps);
  TESSERA_CHECK_AS(Exit::data, state_.data_fingerprint == own, "the images in ", config_.data.folder,
                   " are not those that the run was started with (fingerprints ", own, " and ",
                   state_.data_fingerprint, ")");
  saved_step_ = state_.step;
  const bool reached = config_.train.max_steps <= state_.step;
  config_.train.max_steps = max_steps > 0 ? max_steps : reached ? 0 : config_.train.max_steps;
  last_step_ = config_.train.max_steps > 0 ? std::min(total_steps_, config_.train.max_steps) : total_steps_;
}

void Run::diverged(const Done& done) {
  const StepResult& result = done.result;
  std::string where = steps_->first_non_finite(done);
  // A card with SAM is back from its climb by now.
  const char* at = device_.is_cuda() && config_.sam_rho > 0 ? "at the weights before SAM's climb " : "";
  where = where.empty() ? std::string(at) + "every module's output is finite, the " +
                              (std::isfinite(result.loss) ? "gradient" : "loss") + " is not"
                        : "the first module whose output is not finite is " + where;
  const bool saved = std::filesystem::exists(files_.last());
  fail(Exit::diverged, "step ", done.step + 1, ": loss ", result.loss, ", gradient norm ",
       result.gradient_norm, ": ", where,
       ". Try a lower optim.lr, a longer schedule.warmup_epochs or train.clip = 1; ",
       saved ? "the last checkpoint is " + files_.last() : std::string("no checkpoint was written yet"));
}

Metadata Run::metadata() const {
  Metadata metadata{{kClassesKey, nlohmann::json(train_set_.class_names).dump()},
                    {kMeanKey, nlohmann::json(normalization_.mean).dump()},
                    {kStdKey, nlohmann::json(normalization_.std).dump()},
                    {kDataKey, config_.data.folder},
                    {kDataNameKey, train_set_.name}};
  if (train_set_.samples->shape() == Shape{3, 0, 0})
    metadata[kCropKey] = nlohmann::json(kEvaluationCrop).dump();
  return metadata;
}

void Run::save() {
  finish(steps_->settle());  // what has diverged is not saved
  state_.optimizer_steps = steps_->optimizer().steps();
  save_checkpoint(files_.last(), config_, state_, *model_, steps_->buffers(), metadata());
  saved_step_ = state_.step;
}

void Run::start_clock() {
  clock_ = Clock::now();
  waited_ = loader_.data_wait_seconds();
}

// Says once why a card's steps are not one graph each.
void Run::note_graph() {
  const std::string why = steps_->why_no_graph();
  if (!std::exchange(graph_noted_, !why.empty()) && !why.empty())
    progress_->note("note: steps are launched kernel by kernel, since none can be one graph: " + why);
}

// Notes what a step has given. Of those on a card, one of which follows the other, the time is that between
// two ends.
void Run::finish(const std::optional<Done>& done) {
  if (!done) return;
  if (!done->result.finite()) diverged(*done);
  const double seconds = seconds_since(clock_), waited = loader_.data_wait_seconds() - waited_;
  result_.seconds += seconds;
  state_.epoch_loss += done->result.loss;
  state_.epoch_correct += done->result.correct;
  state_.epoch_gradient_norm += done->result.gradient_norm;
  log_step(*done, seconds, waited);
  start_clock();
}

void Run::log_step(const Done& done, double seconds, double waited) {
  const StepResult& result = done.result;
  const int64_t step = done.step + 1;
  const double accuracy = double(result.correct) / double(done.samples);
  const double lr = learning_rate(config_.schedule, done.step);
  const double images_per_second = double(done.samples) / seconds, data_wait = waited / seconds;
  if (step % config_.train.log_every == 0) {
    nlohmann::ordered_json line{{"kind", "step"},
                                {"step", step},
                                {"epoch", done.epoch},
                                {"loss", result.loss},
                                {"accuracy", accuracy},
                                {"lr", lr},
                                {"grad_norm", result.gradient_norm}};
    if (steps_->has_experts()) {
      line["share_rate"] = steps_->share_rate(done.step);
      line["expert_deviation"] = steps_->deviation(done);
    }
    if (result.auxiliary != 0) line["auxiliary_loss"] = result.auxiliary;
    for (const auto& [name, values] : result.notes) line[name] = values;
    line["images_per_s"] = images_per_second;
    line["data_wait"] = data_wait;
    log_->write(line);
  }
  progress_->update(
      step, text("epoch ", done.epoch + 1, "/", config_.train.epochs, "  loss ", fixed(result.loss, 3),
                 "  top-1 ", fixed(100 * accuracy, 1), "%  lr ", lr, "  |g| ", fixed(result.gradient_norm, 2),
                 "  ", fixed(images_per_second, 0), " img/s  wait ", fixed(100 * data_wait, 0), "%"));
}

Evaluation Run::evaluated() {
  return evaluate(steps_->replicas(), test_set_, normalization_, config_.model.classes, 256,
                  config_.data.test_limit, config_.data.workers);
}

void Run::evaluate_test() {
  result_.test = evaluated();
  if (steps_->has_ema()) {
    steps_->swap_ema();
    result_.ema_top1 = evaluated().top1;
    steps_->swap_ema();
  }
  tested_step_ = state_.step;
}

bool Run::epoch_ends() const {
  return state_.epoch_loss != 0 &&
         (state_.step % loader_.steps_per_epoch() == 0 || state_.step >= total_steps_);
}

void Run::end_epoch() {
  const int64_t epoch = (state_.step - 1) / loader_.steps_per_epoch();
  const double steps = double(state_.step - epoch * loader_.steps_per_epoch());
  const double train_loss = state_.epoch_loss / steps;
  nlohmann::ordered_json line{
      {"kind", "epoch"},
      {"step", state_.step},
      {"epoch", epoch},
      {"train_loss", train_loss},
      {"train_accuracy", double(state_.epoch_correct) / (steps * double(config_.train.step_images()))},
      {"lr", learning_rate(config_.schedule, state_.step - 1)},
      {"grad_norm", state_.epoch_gradient_norm / steps}};
  if (steps_->has_experts()) line["expert_deviation"] = steps_->deviation();
  if ((epoch + 1) % config_.train.eval_every == 0 || state_.step >= total_steps_) {
    evaluate_test();
    line["test_loss"] = result_.test.loss;
    line["test_top1"] = result_.test.top1;
    line["test_top5"] = result_.test.top5;
    line["test_images_per_s"] = result_.test.images_per_second;
    for (const auto& [name, values] : result_.test.notes) line["test_" + name] = values;
    if (steps_->has_ema()) line["test_top1_ema"] = *result_.ema_top1;
    progress_->note(
        text("epoch ", epoch + 1, ": train loss ", fixed(train_loss, 4), ", test loss ",
             fixed(result_.test.loss, 4), ", test top-1 ", fixed(100 * result_.test.top1, 2), "%",
             result_.ema_top1 ? ", of the moving average " + fixed(100 * *result_.ema_top1, 2) + "%" : ""));
    if (result_.test.top1 > state_.best_top1) {
      state_.best_top1 = result_.test.top1;
      save_model(files_.best(), *model_, metadata());
    }
  }
  log_->write(line);
  state_.epoch_loss = state_.epoch_gradient_norm = 0;
  state_.epoch_correct = 0;
  save();
}

RunResult Run::run() {
  const InterruptGuard interrupt;
  const int64_t per_epoch = loader_.steps_per_epoch();
  log_ = std::make_unique<RunLog>(files_.log(), state_.step, epoch_ends());
  if (!start_.is_null()) log_->write(start_);
  progress_ = std::make_unique<ProgressLine>(last_step_, state_.step, show_);
  loader_.seek(state_.step / per_epoch, state_.step % per_epoch);
  const int64_t first_step = state_.step;
  if (epoch_ends()) end_epoch();  // the run was stopped between the epoch's last step and its evaluation
  while (state_.step < last_step_ && !interrupt.signal()) {
    if (!steps_->in_flight()) start_clock();
    const std::optional<Done> done = steps_->take(loader_.next(), state_.step);
    ++state_.step;
    note_graph();
    finish(done);
    if (state_.step % per_epoch == 0 || state_.step >= total_steps_) finish(steps_->settle());
    const bool last = state_.step >= last_step_;
    const int64_t every = config_.train.checkpoint_every;
    if (epoch_ends() || last || interrupt.signal() || (every > 0 && state_.step % every == 0)) save();
    if (epoch_ends() && (last || !interrupt.signal())) end_epoch();
  }
  result_.interrupted = state_.step < last_step_ ? interrupt.signal() : 0;
  if (saved_step_ != state_.step) save();
  if (result_.interrupted == 0) {
    if (tested_step_ != state_.step) evaluate_test();
    save_model(files_.model(), *model_, metadata());
    if (steps_->has_ema()) {
      steps_->swap_ema();
      save_model(files_.ema(), *model_, metadata());
      steps_->swap_ema();
    }
  }
  result_.steps = state_.step;
  result_.best_top1 = state_.best_top1;
  if (result_.seconds > 0)
    result_.images_per_second =
        double((state_.step - first_step) * config_.train.step_images()) / result_.seconds;
  return result_;
}

}  // namespace

void check_fit(const ModelConfig& model, const Dataset& data) {
  const auto same = [&](const char* key, int64_t own, int64_t needed) {
    TESSERA_CHECK_AS(Exit::usage, own == needed, "model.", key, " = ", own, ", but ", data.name, " has ",
                     needed, "; set model.", key, " = ", needed);
  };
  const Shape shape = data.samples->shape();
  TESSERA_CHECK_AS(Exit::usage, shape.rank() == model.input_shape().rank(), "a model of architecture ",
                   model.architecture, " takes samples ", model.input_shape(), ", but those of ", data.name,
                   " are ", shape);
  // A size of 0 follows the model, as the number of points does.
  if (!model.is_of_points()) {
    same("channels", model.channels, shape[0]);
    for (const int64_t side : {shape[1], shape[2]})
      if (side > 0) same("image_size", model.image_size, side);
  }
  same("classes", model.classes, data.classes());
}

LoaderOptions training_options(const RunConfig& c, const Shape& shape, const Normalization& normalization) {
  return {.training = true,
          .batch_size = c.train.step_images(),
          .seed = c.train.seed,
          .prepare = {.shape = shape,
                      .normalization = normalization,
                      .augment = c.data.augment,
                      .cloud = c.data.cloud},
          .mix = c.data.mix,
          .repeats = c.data.repeats,
          .limit = c.data.limit,
          .workers = c.data.workers};
}

std::string weights_path(const std::string& file_or_folder) {
  std::error_code ignored;
  return std::filesystem::is_directory(file_or_folder, ignored) ? RunFiles{file_or_folder}.last()
                                                                : file_or_folder;
}

RunResult train(const RunConfig& given, const std::string& folder, Progress progress) {
  RunConfig config = given;
  validate(config);
  if (config.train.threads > 0) set_thread_count(config.train.threads);
  // What the bits depend on is written down.
  config.train.threads = thread_count();
  config.data.folder = std::filesystem::absolute(config.data.folder).lexically_normal().string();
  std::error_code error;
  remove_stale_temporaries(folder);
  TESSERA_CHECK_AS(Exit::usage, !std::filesystem::exists(folder) || std::filesystem::is_empty(folder, error),
                   folder, ": is not empty; name another folder, or go on with that run by --resume ",
                   folder);
  if (!config.train.init.empty())
    config.train.init =
        std::filesystem::absolute(weights_path(config.train.init)).lexically_normal().string();
  fill_superclasses(config);
  Run run(config, folder, progress);
  if (!config.train.init.empty()) run.start_from(SafetensorsFile(config.train.init));
  std::filesystem::create_directories(folder, error);
  TESSERA_CHECK(std::filesystem::is_directory(folder), folder, ": cannot be made: ", error.message());
  run.save();  // from here on a kill at any moment leaves a run that can be resumed
  write_file_atomically(RunFiles{folder}.config(), to_toml(config));
  return run.run();
}

RunConfig run_config_of(const std::string& folder) {
  return checkpoint_config(SafetensorsFile(RunFiles{folder}.last()));
}

RunResult resume(const std::string& folder, Progress progress, int64_t max_steps, const std::string& device,
                 bool graph) {
  remove_stale_temporaries(folder);
  const SafetensorsFile checkpoint(RunFiles{folder}.last());
  RunConfig config = checkpoint_config(checkpoint);
  if (!device.empty()) config.train.device = device;
  config.train.graph = graph;
  set_thread_count(config.train.threads);
  Run run(config, folder, progress);
  run.load(checkpoint, max_steps);
  return run.run();
}

}  // namespace tessera
