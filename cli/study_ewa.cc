// tessera study ewa: what averaging does to the experts, beside its theory.
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/output.h"
#include "cli/run_settings.h"
#include "engine/io/atomic_file.h"
#include "train/chart.h"
#include "train/ewa_study.h"

namespace tessera::cli {
namespace {

constexpr size_t kMemoryShown = 30;  // steps back in time

struct EwaOptions {
  RunSettings settings;
  std::string out;
  std::vector<std::string> rates;
  int64_t steps = 200;
  bool json = false;
};

std::vector<double> share_rates(const EwaOptions& o) {
  if (o.rates.empty()) return {0, 0.1, 0.3, 0.6};
  std::vector<double> rates;
  for (const std::string& word : o.rates) {
    size_t read = 0;
    double rate = -1;
    try {
      rate = std::stod(word, &read);
    } catch (const std::exception&) {
    }
    TESSERA_CHECK_AS(Exit::usage, read == word.size() && rate >= 0, "--rates ", word,
                     ": not a share rate; give numbers such as 0 0.1 0.3");
    rates.push_back(rate);
  }
  return rates;
}

Series series(const std::string& name, std::vector<double> y, bool dashed = false) {
  std::vector<double> x(y.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = double(i);
  return {name, std::move(x), std::move(y), dashed};
}

Chart deviation_chart(const std::vector<EwaTrace>& traces) {
  Chart chart{.title = "The experts' deviation from their mean",
              .x_label = "step",
              .y_label = "|D| / |mean|",
              .log_y = true};
  for (const EwaTrace& t : traces) {
    chart.series.push_back(series(text("share rate ", t.share_rate), t.deviation));
    chart.series.push_back(series("closed form", t.predicted, true));
  }
  return chart;
}

Chart memory_chart(const std::vector<EwaTrace>& traces) {
  Chart chart{.title = "What is left in D of the step k before the last",
              .x_label = "k",
              .y_label = "length of its term, the last step's = 1",
              .log_y = true};
  for (const EwaTrace& t : traces) {
    std::vector<double> terms(t.memory.begin(),
                              t.memory.begin() + long(std::min(kMemoryShown, t.memory.size())));
    for (const double last = terms[0]; double& term : terms) term /= last;
    chart.series.push_back(series(text("share rate ", t.share_rate), terms));
  }
  return chart;
}

nlohmann::ordered_json to_json(const RunConfig& config, const std::vector<EwaTrace>& traces) {
  nlohmann::ordered_json all{{"config", config_to_json(config)}, {"traces", nlohmann::json::array()}};
  for (const EwaTrace& t : traces)
    all["traces"].push_back({{"share_rate", t.share_rate},
                             {"closed_form_error", t.closed_form_error},
                             {"mean_shift", t.mean_shift},
                             {"decay", t.decay},
                             {"mixture_top1", t.mixture_top1},
                             {"fused_top1", t.fused_top1},
                             {"deviation", t.deviation},
                             {"predicted", t.predicted},
                             {"memory", t.memory}});
  return all;
}

void print(const std::vector<EwaTrace>& traces, int64_t experts, const EwaOptions& o) {
  Table table("rrrrrrrr");
  table.add({"share rate", "decay", "bE/(E-1)", "deviation", "closed form", "largest error", "mean moved by",
             "top-1 mixture, fused"});
  for (const EwaTrace& t : traces)
    table.add({text(t.share_rate), fixed(t.decay, 4),
               fixed(t.share_rate * double(experts) / double(experts - 1), 4), text(t.deviation.back()),
               text(t.predicted.back()), text(t.closed_form_error), text(t.mean_shift),
               percent(t.mixture_top1) + ", " + percent(t.fused_top1)});
  table.print();
  std::cout << "\nAfter " << o.steps << " steps of plain SGD; lengths relative to the mean's.\nwrote "
            << o.out << "/ewa.json, deviation.svg and memory.svg\n";
}

int run(const EwaOptions& o) {
  const RunConfig config = effective_config(o.settings);
  TESSERA_CHECK_AS(Exit::usage, !config.data.folder.empty(),
                   "no data set: give --data DIR, or data.folder in the configuration");
  TESSERA_CHECK_AS(Exit::usage, config.train.max_steps == 0, "--max-steps ", config.train.max_steps,
                   ": the study takes --steps, for each share rate");
  TESSERA_CHECK_AS(Exit::usage, !std::filesystem::exists(o.out + "/ewa.json"), o.out,
                   ": holds a study already; give another folder by --out");
  use_threads(config.train.threads);
  const std::vector<EwaTrace> traces = study_ewa(config, share_rates(o), o.steps);
  std::error_code error;
  std::filesystem::create_directories(o.out, error);
  TESSERA_CHECK(std::filesystem::is_directory(o.out), o.out, ": cannot be made: ", error.message());
  const nlohmann::ordered_json all = to_json(config, traces);
  write_file_atomically(o.out + "/ewa.json", all.dump(1) + "\n");
  write_file_atomically(o.out + "/deviation.svg", to_svg(deviation_chart(traces)));
  write_file_atomically(o.out + "/memory.svg", to_svg(memory_chart(traces)));
  if (o.json)
    print_json(all);
  else
    print(traces, config.model.moe.experts, o);
  return 0;
}

}  // namespace

Command study_ewa_command() {
  return {"study ewa", "measure what averaging does to the experts, beside its theory",
          R"(A short run of plain SGD for each share rate, from the same weights on the same batches.
After every step the experts' deviation D from their mean is compared with the closed form
  D_i(m) = (1-c)^m D_i(0) - lr sum_t (1-c)^(m-t) (g_i(t) - mean g(t)),  c = bE/(E-1),
which is computed from the first weights and the gradients alone: averaging is a decay of D
by c (column decay) that leaves the mean where it is, and D remembers past steps, the less
the older they are. Writes ewa.json, deviation.svg and memory.svg.

  tessera study ewa --preset fashion-mnist-ewa --lr 0.05 --out runs/study)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<EwaOptions>();
            declare(args, o->settings);
            args.option("--rates", "X", o->rates, "Share rates; else 0 0.1 0.3 0.6");
            args.option("--steps", o->steps, 1, "Steps for each of them");
            args.required("-o,--out", o->out, "Folder to write to");
            args.flag("--json", o->json, "The result as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
