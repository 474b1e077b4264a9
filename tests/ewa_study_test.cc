// The closed form of averaging, on real steps; and the charts that show it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "models/registry.h"
#include "tests/data_files.h"
#include "train/chart.h"
#include "train/ewa_study.h"

namespace tessera {
namespace {

TEST_CASE("deviations follow their closed form, and the mean does not move") {
  const testing::TempFolder folder;
  for (const auto& [prefix, count] : {std::pair{"train", 64u}, std::pair{"t10k", 16u}}) {
    folder.write(std::string(prefix) + "-images-idx3-ubyte", testing::idx_file({count, 28, 28}));
    folder.write(std::string(prefix) + "-labels-idx1-ubyte", testing::idx_file({count}, 10));
  }
  RunConfig config;
  config.model = model_by_name("vit_small_image_28");
  config.model.dim = 16;
  config.model.depth = 2;
  config.model.heads = 2;
  config.model.moe.blocks = "every-2";
  config.data.folder = folder.path().string();
  config.train.batch = 16;
  config.schedule.lr = 0.1;
  const auto traces = study_ewa(config, {0, 0.3, 0.75}, 6);
  REQUIRE(traces.size() == 3);
  for (const EwaTrace& t : traces) {
    CAPTURE(t.share_rate);
    CHECK(t.decay == doctest::Approx(t.share_rate * 4 / 3).epsilon(1e-4));
    // Rounding makes it 1e-7; leaving the gradients out 5e-3 and more, a wrong decay 0.2.
    CHECK(t.closed_form_error < 2e-6);
    CHECK(t.mean_shift < 1e-6);
    CHECK(t.memory.size() == 6);
    CHECK(t.deviation.size() == 7);
  }
  CHECK(traces[0].deviation.back() > 0.5 * traces[0].deviation.front());
  CHECK(traces[1].deviation.back() < 0.1 * traces[1].deviation.front());
  CHECK(traces[2].deviation.back() < 1e-6);
  CHECK(traces[2].fused_top1 == traces[2].mixture_top1);
  // The first gradients are the same, and six averagings take off their part: 0.6 = 1 - 0.3 * 4 / 3 each.
  CHECK(traces[1].memory.back() ==
        doctest::Approx(std::pow(0.6, 6) * traces[0].memory.back()).epsilon(1e-4).scale(0));
  CHECK(traces[0].deviation.front() == traces[1].deviation.front());
}

TEST_CASE("a chart shows every point that its axes hold") {
  const std::string svg =
      to_svg({.title = "a < b",
              .x_label = "x",
              .y_label = "y",
              .series = {{"one", {0, 1, 2, 3}, {1, 0, 10, 100}}, {"two", {0, 3}, {1, 1}, true}},
              .log_y = true});
  CHECK(svg.find("a &lt; b") != std::string::npos);
  // From 10^0 to 10^2 over the plot's height; 0 has no place on a logarithmic axis.
  CHECK(svg.find("points=\"80,380 400,214 560,48 \"") != std::string::npos);
  CHECK(svg.find("stroke-dasharray") != std::string::npos);
}

TEST_CASE("a heat map is darkest at its largest number, and has a dash where there is none") {
  const std::string svg = to_svg(HeatMap{"a & b", {"r1", "r2"}, {"c1", "c2"}, {1, 5, NAN, 3}});
  CHECK(svg.find("a &amp; b") != std::string::npos);
  CHECK(svg.find("rgb(255,255,255)\" stroke=\"#ddd\"/>\n<text x=\"335\" y=\"90\" text-anchor=\"middle\" "
                 "fill=\"black\">1<") != std::string::npos);
  CHECK(svg.find("rgb(0,74,128)\" stroke=\"#ddd\"/>\n<text x=\"485\" y=\"90\" text-anchor=\"middle\" "
                 "fill=\"white\">5<") != std::string::npos);
  CHECK(svg.find(">-</text>") != std::string::npos);
  CHECK_THROWS_AS(to_svg(HeatMap{"", {"r"}, {"c"}, {}}), Error);
}

}  // namespace
}  // namespace tessera
