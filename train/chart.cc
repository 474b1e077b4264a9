#include "train/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <sstream>

#include "engine/base/check.h"

namespace tessera {
namespace {

// In pixels: the picture and the frame of its plot.
constexpr double kWidth = 720, kHeight = 440, kLeft = 80, kRight = 560, kTop = 48, kBottom = 380;
constexpr double kMargin = 24;
// Okabe and Ito's colours, which colour-blind readers tell apart.
constexpr const char* kColours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"};

std::string escaped(const std::string& words) {
  std::string out;
  for (const char c : words)
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

std::string number(double value) {
  char out[32];
  std::snprintf(out, sizeof out, "%.6g", value + 0.0);  // no -0
  return out;
}

// From values to pixels along one axis.
struct Axis {
  double from, to;  // pixels
  bool log = false;
  double least = std::numeric_limits<double>::infinity(), most = -least;

  bool holds(double value) const { return std::isfinite(value) && (!log || value > 0); }
  double place(double value) const { return log ? std::log10(value) : value; }
  void widen(double value) {
    least = std::min(least, place(value));
    most = std::max(most, place(value));
  }
  void round_out() {
    if (!(least <= most)) least = 0, most = 1;
    if (log) least = std::floor(least), most = std::ceil(most);
    if (most - least < 1e-12 * std::max(1.0, std::abs(most))) least -= 0.5, most += 0.5;
  }
  double at(double value) const { return from + (to - from) * (place(value) - least) / (most - least); }

  // About five: powers of ten, or multiples of 1, 2 or 5 of one.
  std::vector<double> ticks() const {
    std::vector<double> out;
    if (log) {
      const double step = std::max(1.0, std::ceil((most - least) / 6));
      for (double power = least; power <= most + 1e-9; power += step) out.push_back(std::pow(10, power));
      return out;
    }
    const double raw = (most - least) / 5, unit = std::pow(10, std::floor(std::log10(raw)));
    const double step = unit * (raw / unit > 5 ? 10 : raw / unit > 2 ? 5 : raw / unit > 1 ? 2 : 1);
    for (double i = std::ceil(least / step - 1e-9); i * step <= most + 1e-9 * step; ++i)
      out.push_back(i * step);
    return out;
  }
};

void write(std::ostream& out, double x, double y, const std::string& words,
           const std::string& attributes = "") {
  out << "<text x=\"" << x << "\" y=\"" << y << "\" " << attributes << '>' << escaped(words) << "</text>\n";
}

void line(std::ostream& out, double x1, double y1, double x2, double y2, const std::string& attributes) {
  out << "<line x1=\"" << x1 << "\" y1=\"" << y1 << "\" x2=\"" << x2 << "\" y2=\"" << y2 << "\" "
      << attributes << "/>\n";
}

// The head of a picture, with its title.
void begin_svg(std::ostream& out, double width, double height, const std::string& title) {
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << ' ' << height
      << "\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" "
         "fill=\"white\"/>\n";
  write(out, kMargin, 26, title, "font-size=\"16\"");
}

// From white, for 0, to a dark blue, for 1.
std::string shade(double part) {
  const auto mixed = [part](double dark) { return int(std::lround(255 + part * (dark - 255))); };
  return text("rgb(", mixed(0), ',', mixed(74), ',', mixed(128), ')');
}

}  // namespace

std::string to_svg(const HeatMap& map) {
  constexpr double kCellWidth = 150, kCellHeight = 30, kNames = 260, kHead = 70;
  TESSERA_CHECK(map.values.size() == map.rows.size() * map.columns.size(), "heat map ", map.title, ": ",
                map.values.size(), " values for ", map.rows.size(), " x ", map.columns.size());
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (const double value : map.values)
    if (std::isfinite(value)) least = std::min(least, value), most = std::max(most, value);

  std::ostringstream out;
  begin_svg(out, kNames + kCellWidth * double(map.columns.size()) + kMargin,
            kHead + kCellHeight * double(map.rows.size()) + kMargin, map.title);
  for (size_t c = 0; c < map.columns.size(); ++c)
    write(out, kNames + kCellWidth * (double(c) + 0.5), kHead - 8, map.columns[c], "text-anchor=\"middle\"");
  for (size_t r = 0; r < map.rows.size(); ++r) {
    const double y = kHead + kCellHeight * double(r);
    write(out, kNames - 8, y + 20, map.rows[r], "text-anchor=\"end\"");
    for (size_t c = 0; c < map.columns.size(); ++c) {
      const double x = kNames + kCellWidth * double(c), value = map.values[r * map.columns.size() + c];
      const double part = std::isfinite(value) && most > least ? (value - least) / (most - least) : 0;
      out << "<rect x=\"" << x << "\" y=\"" << y << "\" width=\"" << kCellWidth << "\" height=\""
          << kCellHeight << "\" fill=\"" << shade(part) << "\" stroke=\"#ddd\"/>\n";
      write(out, x + kCellWidth / 2, y + 20, std::isfinite(value) ? number(value) : "-",
            text("text-anchor=\"middle\" fill=\"", part > 0.5 ? "white" : "black", '"'));
    }
  }
  out << "</svg>\n";
  return out.str();
}

std::string to_svg(const Chart& chart) {
  Axis x{kLeft, kRight}, y{kBottom, kTop, chart.log_y};
  const auto shown = [&](const Series& s, size_t i) { return x.holds(s.x[i]) && y.holds(s.y[i]); };
  for (const Series& s : chart.series) {
    TESSERA_CHECK(s.x.size() == s.y.size(), "chart ", chart.title, ": ", s.x.size(), " x and ", s.y.size(),
                  " y of ", s.name);
    for (size_t i = 0; i < s.x.size(); ++i)
      if (shown(s, i)) x.widen(s.x[i]), y.widen(s.y[i]);
  }
  x.round_out();
  y.round_out();

  std::ostringstream out;
  begin_svg(out, kWidth, kHeight, chart.title);
  for (const double tick : x.ticks()) {
    line(out, x.at(tick), kBottom, x.at(tick), kTop, "stroke=\"#ddd\"");
    write(out, x.at(tick), kBottom + 18, number(tick), "text-anchor=\"middle\"");
  }
  for (const double tick : y.ticks()) {
    line(out, kLeft, y.at(tick), kRight, y.at(tick), "stroke=\"#ddd\"");
    write(out, kLeft - 6, y.at(tick) + 4, number(tick), "text-anchor=\"end\"");
  }
  write(out, (kLeft + kRight) / 2, kBottom + 42, chart.x_label, "text-anchor=\"middle\"");
  write(out, 0, 0, chart.y_label,
        text("text-anchor=\"middle\" transform=\"translate(20 ", (kTop + kBottom) / 2, ") rotate(-90)\""));

  size_t colours = 0;
  double legend = kTop + 8;
  for (const Series& s : chart.series) {
    const char* const colour = s.dashed ? "black" : kColours[colours++ % std::size(kColours)];
    const std::string stroke = text("fill=\"none\" stroke=\"", colour, "\" stroke-width=\"", s.dashed ? 1 : 2,
                                    '"', s.dashed ? " stroke-dasharray=\"5 4\"" : "");
    out << "<polyline " << stroke << " points=\"";
    for (size_t i = 0; i < s.x.size(); ++i)
      if (shown(s, i)) out << number(x.at(s.x[i])) << ',' << number(y.at(s.y[i])) << ' ';
    out << "\"/>\n";
    line(out, kRight + 12, legend, kRight + 36, legend, stroke);
    write(out, kRight + 42, legend + 4, s.name);
    legend += 20;
  }
  out << "</svg>\n";
  return out.str();
}

}  // namespace tessera
