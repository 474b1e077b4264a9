// Communities of a weighted graph: Louvain (Blondel et al., 2008, arXiv 0803.0476) on modularity with a
// resolution (Reichardt and Bornholdt, 2006),
//   Q = 1/2m sum_ij [A_ij - resolution k_i k_j / 2m] (i and j together),  k_i = sum_j A_ij,  2m = sum_i k_i.
// Everything is taken in order of the nodes and ties go to the lower number, so that a graph has one result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera {

// Symmetric weights, none negative, row by row.
struct Graph {
  int64_t nodes = 0;
  std::vector<double> weights;  // (nodes, nodes)

  double at(int64_t i, int64_t j) const { return weights[size_t(i * nodes + j)]; }
};

// The community of each node, numbered by their first nodes.
std::vector<int32_t> louvain(const Graph& graph, double resolution = 1);

double modularity(const Graph& graph, const std::vector<int32_t>& community, double resolution = 1);

// Exactly `count` communities, from 1 to the number of nodes. The resolution is raised until Louvain finds
// that many or more; those too many are then joined pair by pair, always the two that cost the least
// modularity, and of equal ones the two that are smallest together (our choice: it keeps nodes without edges
// from gathering).
std::vector<int32_t> cluster(const Graph& graph, int64_t count);

}  // namespace tessera
