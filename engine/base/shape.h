// Shape: the sizes of a dense row-major tensor, at most six of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>

namespace tessera {

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : Shape(sizes.begin(), sizes.end()) {}
  template <class It>
  Shape(It begin, It end) {
    for (; begin != end; ++begin) push_back(*begin);
  }

  int rank() const { return rank_; }
  // Negative axes count from the end.
  int64_t operator[](int axis) const { return sizes_[size_t(checked(axis))]; }
  int64_t& operator[](int axis) { return sizes_[size_t(checked(axis))]; }
  const int64_t* begin() const { return sizes_.data(); }
  const int64_t* end() const { return sizes_.data() + rank_; }

  void push_back(int64_t size);

  // A negative axis counted from the front.
  int axis(int axis) const { return checked(axis); }

  // Product of all sizes; an overflow is an error.
  int64_t count() const { return count(0, rank_); }
  int64_t count(int first, int last) const;

  friend bool operator==(const Shape& a, const Shape& b) { return std::ranges::equal(a, b); }
  friend std::ostream& operator<<(std::ostream& out, const Shape& shape);

 private:
  int checked(int axis) const;

  std::array<int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

}  // namespace tessera
