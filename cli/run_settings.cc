#include "cli/run_settings.h"

#include "engine/io/atomic_file.h"

namespace tessera::cli {
namespace {

constexpr uint64_t kConfigBytesMax = 1 << 20;

// Flags that stand for a key of the configuration.
struct Shortcut {
  const char *flag, *kind, *key, *help;
};
constexpr Shortcut kShortcuts[] = {
    {"--data", "DIR", "data.folder",
     "Folder of the data set: MNIST's IDX, CIFAR, Tiny-ImageNet, an image folder or point clouds"},
    {"--model", "NAME", "model.name", "Model; `tessera list models` shows all"},
    {"--moe", "BLOCKS", "model.moe.blocks", "Blocks with experts: none, every-2, last-2 or 1,3,5"},
    {"--experts", "N", "model.moe.experts", "Experts in each of these blocks"},
    {"--share-rate", "X", "ewa.share_rate", "How much of its weights an expert takes from the others a step"},
    {"--init", "WEIGHTS", "train.init",
     "Fine-tune: start from a dense model of timm or of ours, or a run's last"},
    {"--epochs", "X", "train.epochs", "Passes over the training images"},
    {"--batch", "N", "train.batch", "Images a step"},
    {"--lr", "X", "optim.lr", "Highest learning rate"},
    {"--seed", "N", "train.seed", "Seed of all random numbers"},
    {"--device", "NAME", "train.device", "auto, cpu, cuda or cuda:I"},
    {"--dtype", "TYPE", "train.dtype", "Products on a card: f32, tf32 or bf16"},
    {"--threads", "N", "train.threads", "Threads; 0: all"},
    {"--max-steps", "N", "train.max_steps", "Stop after this many steps; the schedule stays as it is"},
};

}  // namespace

void declare(Arguments& args, RunSettings& to) {
  args.option("--preset", "NAME", to.preset, "Settings to start from; see `tessera list presets`");
  args.option("-c,--config", "FILE", to.file, "TOML file of settings");
  args.option("--set", "KEY=VALUE", to.set, "Any setting, such as optim.lr=3e-4");
  for (const Shortcut& s : kShortcuts)
    args.option(
        s.flag, s.kind,
        [&to, key = s.key](const std::string& value) { to.shortcuts.emplace_back(key, value); }, s.help);
}

RunConfig effective_config(const RunSettings& given) {
  RunConfig config;
  if (!given.preset.empty()) apply_toml(config, preset_by_name(given.preset).toml, "preset " + given.preset);
  if (!given.file.empty())
    apply_toml(config, read_text(given.file, kConfigBytesMax, Exit::usage), given.file);
  auto settings = key_values(given.set);
  settings.insert(settings.end(), given.shortcuts.begin(), given.shortcuts.end());
  apply_settings(config, settings);
  validate(config);
  return config;
}

}  // namespace tessera::cli
