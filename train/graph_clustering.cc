#include "train/graph_clustering.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "engine/base/check.h"

namespace tessera {
namespace {

using Communities = std::vector<int32_t>;

constexpr double kLeastGain = 1e-12;  // relative to 2m: rounding moves nobody

std::vector<double> degrees(const Graph& g) {
  std::vector<double> k(size_t(g.nodes), 0.0);
  for (int64_t i = 0; i < g.nodes; ++i)
    for (int64_t j = 0; j < g.nodes; ++j) k[size_t(i)] += g.at(i, j);
  return k;
}

double total(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

// Numbers the communities by their first nodes and gives how many there are.
int32_t renumber(Communities& community) {
  std::vector<int32_t> number(community.size(), -1);
  int32_t next = 0;
  for (int32_t& c : community) {
    int32_t& own = number[size_t(c)];
    if (own < 0) own = next++;
    c = own;
  }
  return next;
}

// Every node to the community that it gains most in, again and again until none moves.
Communities move_nodes(const Graph& g, double resolution) {
  const std::vector<double> degree = degrees(g);
  const double all = total(degree);
  Communities community(static_cast<size_t>(g.nodes));
  std::iota(community.begin(), community.end(), 0);
  std::vector<double> sum = degree;  // of each community's degrees
  for (bool moved = all > 0; moved;) {
    moved = false;
    for (int64_t i = 0; i < g.nodes; ++i) {
      const int32_t own = community[size_t(i)];
      sum[size_t(own)] -= degree[size_t(i)];
      std::vector<double> links(size_t(g.nodes), 0.0);
      for (int64_t j = 0; j < g.nodes; ++j)
        if (j != i) links[size_t(community[size_t(j)])] += g.at(i, j);
      const auto gain = [&](int32_t c) {
        return links[size_t(c)] - resolution * degree[size_t(i)] * sum[size_t(c)] / all;
      };
      int32_t best = own;
      for (int32_t c = 0; c < int32_t(g.nodes); ++c)
        if (links[size_t(c)] > 0 && gain(c) > gain(best) + kLeastGain * all) best = c;
      sum[size_t(best)] += degree[size_t(i)];
      community[size_t(i)] = best;
      moved = moved || best != own;
    }
  }
  return community;
}

// The communities as nodes; what was inside one becomes an edge to itself.
Graph joined(const Graph& g, const Communities& community, int32_t count) {
  Graph out{count, std::vector<double>(size_t(count) * size_t(count), 0.0)};
  for (int64_t i = 0; i < g.nodes; ++i)
    for (int64_t j = 0; j < g.nodes; ++j)
      out.weights[size_t(community[size_t(i)]) * size_t(count) + size_t(community[size_t(j)])] += g.at(i, j);
  return out;
}

void check_graph(const Graph& g) {
  TESSERA_CHECK(g.nodes > 0 && int64_t(g.weights.size()) == g.nodes * g.nodes,
                "clustering: ", g.weights.size(), " weights for ", g.nodes, " nodes");
  for (int64_t i = 0; i < g.nodes; ++i)
    for (int64_t j = 0; j <= i; ++j)
      TESSERA_CHECK(g.at(i, j) >= 0 && g.at(i, j) == g.at(j, i) && std::isfinite(g.at(i, j)),
                    "clustering: the weights between nodes ", i, " and ", j, " are ", g.at(i, j), " and ",
                    g.at(j, i), "; they must be equal and not negative");
}

// Joins the pair of communities that costs the least.
void join_one_pair(const Graph& g, double resolution, Communities& community, int32_t count) {
  const Graph between = joined(g, community, count);
  const std::vector<double> degree = degrees(between);
  const double all = std::max(total(degree), 1e-300);
  std::vector<int64_t> size(static_cast<size_t>(count));
  for (const int32_t c : community) ++size[size_t(c)];
  std::tuple<double, int64_t, int32_t, int32_t> best{INFINITY, 0, 0, 0};  // cost, size, the pair
  for (int32_t a = 0; a < count; ++a)
    for (int32_t b = a + 1; b < count; ++b) {
      const double gain = between.at(a, b) - resolution * degree[size_t(a)] * degree[size_t(b)] / all;
      best = std::min(best, {-gain, size[size_t(a)] + size[size_t(b)], a, b});
    }
  for (int32_t& c : community)
    if (c == std::get<3>(best)) c = std::get<2>(best);
  renumber(community);
}

}  // namespace

std::vector<int32_t> louvain(const Graph& graph, double resolution) {
  check_graph(graph);
  Communities community(static_cast<size_t>(graph.nodes));
  std::iota(community.begin(), community.end(), 0);
  for (Graph level = graph;;) {
    Communities step = move_nodes(level, resolution);
    const int32_t count = renumber(step);
    for (int32_t& c : community) c = step[size_t(c)];
    if (count == level.nodes) break;
    level = joined(level, step, count);
  }
  renumber(community);
  return community;
}

double modularity(const Graph& g, const std::vector<int32_t>& community, double resolution) {
  const std::vector<double> degree = degrees(g);
  const double all = total(degree);
  if (all == 0) return 0;
  double sum = 0;
  for (int64_t i = 0; i < g.nodes; ++i)
    for (int64_t j = 0; j < g.nodes; ++j)
      if (community[size_t(i)] == community[size_t(j)])
        sum += g.at(i, j) - resolution * degree[size_t(i)] * degree[size_t(j)] / all;
  return sum / all;
}

std::vector<int32_t> cluster(const Graph& graph, int64_t count) {
  TESSERA_CHECK_AS(Exit::usage, count >= 1 && count <= graph.nodes, "clustering: ", count, " groups of ",
                   graph.nodes, " classes; there must be from 1 to as many as classes");
  constexpr double kLowest = 0.05, kStep = 1.05, kHighest = 1e4;
  for (double resolution = kLowest;; resolution *= kStep) {
    Communities community = resolution < kHighest ? louvain(graph, resolution) : Communities();
    if (community.empty()) {  // not even so many fall apart: every node for itself
      community.resize(size_t(graph.nodes));
      std::iota(community.begin(), community.end(), 0);
    }
    int32_t found = 1 + *std::max_element(community.begin(), community.end());
    if (found < count) continue;
    for (; found > count; --found) join_one_pair(graph, resolution, community, found);
    return community;
  }
}

}  // namespace tessera
