// Clustering of graphs whose communities are known, and the files and sources of super-classes.
#include "train/superclass.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "engine/base/rng.h"

namespace tessera {
namespace {

// Confusions that stay within blocks of classes, up to a little everywhere; class k is in block block[k].
Confusion blocks(const std::vector<int32_t>& block, double within, double outside, uint64_t seed = 1) {
  const int64_t K = int64_t(block.size());
  Confusion c{K, 100 * K, std::vector<double>(size_t(K * K))};
  const Draw draw{.seed = seed};
  for (int64_t i = 0; i < K; ++i)
    for (int64_t j = 0; j < K; ++j) {
      const double level = i == j ? 10 : block[size_t(i)] == block[size_t(j)] ? within : outside;
      c.rows[size_t(i * K + j)] = level * (0.5 + draw.uniform(uint64_t(i * K + j)));
    }
  return c;
}

// Whether two groupings are the same but for the groups' numbers.
bool same_communities(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if ((a[i] == a[j]) != (b[i] == b[j])) return false;
  return a.size() == b.size();
}

int32_t count_of(const std::vector<int32_t>& community) {
  return 1 + *std::max_element(community.begin(), community.end());
}

TEST_CASE("the confusion graph is symmetric, without a diagonal, and does not see how often a class came") {
  Confusion c = blocks({0, 0, 1, 1}, 1, 0.1);
  const Graph graph = confusion_graph(c);
  double sum = 0;
  for (int64_t j = 0; j < 4; ++j) sum += c.rows[size_t(j)];
  double other = 0;
  for (int64_t j = 0; j < 4; ++j) other += c.rows[size_t(2 * 4 + j)];
  CHECK(graph.at(0, 2) == doctest::Approx(c.rows[2] / sum + c.rows[8] / other));
  for (int64_t i = 0; i < 4; ++i) {
    CHECK(graph.at(i, i) == 0);
    for (int64_t j = 0; j < 4; ++j) CHECK(graph.at(i, j) == graph.at(j, i));
  }
  for (int64_t j = 0; j < 4; ++j) c.rows[size_t(j)] *= 7;
  for (int64_t j = 0; j < 4; ++j) CHECK(confusion_graph(c).at(0, j) == doctest::Approx(graph.at(0, j)));
}

TEST_CASE("blocks of confusion are found, whatever their order and sizes") {
  std::vector<int32_t> block;
  for (int32_t b = 0; b < 6; ++b) block.insert(block.end(), size_t(3 + 2 * b), b);
  const Permutation permutation(block.size(), Draw{.seed = 4});
  std::vector<int32_t> shuffled;
  for (size_t i = 0; i < block.size(); ++i) shuffled.push_back(block[size_t(permutation.at(i))]);
  const Graph graph = confusion_graph(blocks(shuffled, 1, 0.03));
  CHECK(same_communities(louvain(graph), shuffled));
  CHECK(same_communities(cluster(graph, 6), shuffled));
  CHECK(cluster(graph, 6) == cluster(graph, 6));
}

TEST_CASE("Louvain's result has more modularity than its neighbours") {
  const Graph graph = confusion_graph(blocks({0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2}, 1, 0.2));
  for (const double resolution : {0.8, 1.0, 1.5}) {
    const std::vector<int32_t> best = louvain(graph, resolution);
    const double own = modularity(graph, best, resolution);
    for (size_t i = 0; i < best.size(); ++i)
      for (int32_t c = 0; c <= count_of(best) && c < int32_t(best.size()); ++c) {
        std::vector<int32_t> moved = best;
        moved[i] = c;
        CHECK(modularity(graph, moved, resolution) <= own + 1e-9);
      }
  }
  // Two triangles joined by an edge, by hand: 2m = 14, Q = 2 (6/14 - (7/14)^2) = 5/14.
  Graph triangles{6, std::vector<double>(36, 0.0)};
  for (const auto& [i, j] : {std::pair{0, 1}, {0, 2}, {1, 2}, {3, 4}, {3, 5}, {4, 5}, {2, 3}})
    triangles.weights[size_t(i * 6 + j)] = triangles.weights[size_t(j * 6 + i)] = 1;
  CHECK(louvain(triangles) == std::vector<int32_t>{0, 0, 0, 1, 1, 1});
  CHECK(modularity(triangles, louvain(triangles)) == doctest::Approx(5.0 / 14));
  // A pair of nodes gains 1 - r d d' / 14 by being one, with degrees of 2 and 3.
  CHECK(louvain(triangles, 4) == std::vector<int32_t>{0, 1, 2, 3, 4, 5});
  CHECK(louvain(triangles, 0.1) == std::vector<int32_t>(6, 0));
}

TEST_CASE("where two pairs of groups fall apart at once, the one that is cheaper to join is joined again") {
  // Two groups of four nodes and two of two. Their links e and their nodes' degrees d are such that e / d^2,
  // and with it the resolution at which they part, is that of both pairs; the small ones lose less by
  // joining.
  Graph graph{12, std::vector<double>(144, 0.0)};
  const auto link = [&](int64_t begin, int64_t half, double within, double between) {
    for (int64_t i = begin; i < begin + 2 * half; ++i)
      for (int64_t j = begin; j < begin + 2 * half; ++j)
        if (i != j)
          graph.weights[size_t(i * 12 + j)] = (i - begin) / half == (j - begin) / half ? within : between;
  };
  link(0, 4, 10, 1);       // d = 3 * 10 + 4 * 1 = 34
  link(8, 2, 16.5, 0.25);  // d = 16.5 + 2 * 0.25 = 17
  CHECK(cluster(graph, 2) == std::vector<int32_t>{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1});
  CHECK(cluster(graph, 4) == std::vector<int32_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3});
  CHECK(cluster(graph, 3) == std::vector<int32_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2});
}

TEST_CASE("any number of groups is met exactly") {
  const Graph graph = confusion_graph(blocks({0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2}, 1, 0.1));
  for (int64_t count = 1; count <= 12; ++count) {
    const std::vector<int32_t> groups = cluster(graph, count);
    CHECK(count_of(groups) == count);
    CHECK(std::set<int32_t>(groups.begin(), groups.end()).size() == size_t(count));
  }
  // Fewer groups than blocks join whole blocks.
  const std::vector<int32_t> two = cluster(graph, 2);
  for (size_t i = 0; i < 12; ++i) CHECK(two[i] == two[i < 4 ? 0 : i < 7 ? 4 : 7]);
  CHECK_THROWS_WITH_AS(cluster(graph, 13),
                       "clustering: 13 groups of 12 classes; there must be from 1 to as many as classes",
                       Error);
}

TEST_CASE("classes that are never confused are shared out evenly") {
  const Graph nothing{10, std::vector<double>(100, 0.0)};
  const std::vector<int32_t> groups = cluster(nothing, 4);
  CHECK(count_of(groups) == 4);
  for (int32_t g = 0; g < 4; ++g) {
    CHECK(std::count(groups.begin(), groups.end(), g) >= 2);
    CHECK(std::count(groups.begin(), groups.end(), g) <= 4);
  }
}

Dataset tiny_set() {
  Dataset data;
  data.name = "tiny";
  data.class_names = {"a \"quoted\" one", "b", "c", "d", "e"};
  data.labels = {0, 1, 2, 3, 4, 0};
  data.coarse_labels = {1, 0, 0, 1, 1, 1};
  data.coarse_names = {"x", "y"};
  return data;
}

TEST_CASE("a file of super-classes is read as it was written") {
  const Dataset data = tiny_set();
  const Superclasses superclass{2, 0, 1, 0, 2};
  const std::string toml = superclasses_to_toml(superclass, data.class_names, "by a test");
  CHECK(superclasses_from_toml(toml, "f", data.class_names, 3) == superclass);
  std::vector<std::string> dotted;
  for (int k = 0; k < 300; ++k) dotted.push_back("n." + std::to_string(k));
  const Superclasses one(300, 0);
  CHECK(superclasses_from_toml(superclasses_to_toml(one, dotted, "dots"), "f", dotted, 1) == one);
  const std::vector<std::string> odd{"tab\tand \x01", "del \x7f", "back\\slash", "\xc3\xa4 \xc2\x9b", "e"};
  CHECK(superclasses_from_toml(superclasses_to_toml(superclass, odd, "a\nb"), "f", odd, 3) == superclass);
  const auto error = [&](const std::string& text, int64_t groups) -> std::string {
    try {
      superclasses_from_toml(text, "f", data.class_names, groups);
    } catch (const Error& e) {
      CHECK(e.code() == Exit::usage);
      return e.what();
    }
    return "";
  };
  CHECK(error(toml, 4) == "model.moe.experts = 4, but f has 3 groups");
  CHECK(error("group = 3", 1).find("holds no list of [[group]]") != std::string::npos);
  CHECK(error("[[group]]\nname = 1", 1).find("group 1 has no classes") != std::string::npos);
  CHECK(error("[[group]]\nclasses = [\"b\", \"bb\"]", 1) ==
        "f: the class 'bb' is not known; did you mean 'b'?");
  CHECK(error("[[group]]\nclasses = [\"b\"]\n[[group]]\nclasses = [\"b\"]", 2) ==
        "f: the class 'b' is in the groups 1 and 2");
  CHECK(error("[[group]]\nclasses = [\"b\", 3]", 1) == "f: group 1: a class that is no string");
  CHECK(error("[[group]]\nclasses = [\"b\"]", 1) == "f: the class 'a \"quoted\" one' is in no group");
  CHECK(error("[[group", 1).substr(0, 4) == "f:1:");
}

TEST_CASE("super-classes of a data set's own, and random ones") {
  const Dataset data = tiny_set();
  CHECK(find_superclasses("coarse", data, 2, 0) == Superclasses{1, 0, 0, 1, 1});
  CHECK_THROWS_WITH_AS(find_superclasses("coarse", data, 3, 0),
                       "model.moe.experts = 3, but tiny has 2 super-classes", Error);
  const Superclasses random = find_superclasses("random", data, 2, 7);
  CHECK(random == find_superclasses("random", data, 2, 7));
  CHECK(std::count(random.begin(), random.end(), 0) == 3);
  CHECK(std::count(random.begin(), random.end(), 1) == 2);
  int differ = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) differ += find_superclasses("random", data, 2, seed) != random;
  CHECK(differ > 3);
  CHECK_THROWS_AS(find_superclasses("no/such/file.toml", data, 2, 0), Error);
}

}  // namespace
}  // namespace tessera
