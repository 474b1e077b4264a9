// Line charts and heat maps as SVG files: enough to look at a study's numbers.
#pragma once

#include <string>
#include <vector>

namespace tessera {

struct Series {
  std::string name;
  std::vector<double> x, y;  // what is not finite, or not above 0 on a logarithmic axis, is left out
  bool dashed = false;
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<Series> series = {};  // dashed ones are thin and black
  bool log_y = false;
};

// Numbers in a grid, the larger the darker.
struct HeatMap {
  std::string title;
  std::vector<std::string> rows, columns;
  std::vector<double> values;  // row by row; what is not finite stays white, with a dash
};

std::string to_svg(const Chart& chart);
std::string to_svg(const HeatMap& map);

}  // namespace tessera
