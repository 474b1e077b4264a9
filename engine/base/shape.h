// Shape: the sizes of a dense row-major tensor, at most six of them.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>

#include "engine/base/check.h"

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

  void push_back(int64_t size) {
    TESSERA_CHECK(rank_ < kMaxRank, "shape: more than ", kMaxRank, " axes");
    TESSERA_CHECK(size >= 0, "shape: negative size ", size);
    sizes_[size_t(rank_++)] = size;
  }

  // A negative axis counted from the front.
  int axis(int axis) const { return checked(axis); }

  // Product of all sizes; an overflow is an error.
  int64_t count() const { return count(0, rank_); }
  int64_t count(int first, int last) const {
    int64_t product = 1;
    for (int axis = first; axis < last; ++axis)
      TESSERA_CHECK(!__builtin_mul_overflow(product, sizes_[size_t(axis)], &product), "shape: ", *this,
                    " has more elements than fit in 63 bits");
    return product;
  }

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int axis = 0; axis < a.rank_; ++axis)
      if (a[axis] != b[axis]) return false;
    return true;
  }
  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << '(';
    for (int axis = 0; axis < shape.rank_; ++axis) out << (axis ? "," : "") << shape[axis];
    return out << ')';
  }

 private:
  int checked(int axis) const {
    const int positive = axis < 0 ? axis + rank_ : axis;
    TESSERA_CHECK(positive >= 0 && positive < rank_, "shape: axis ", axis, " of ", *this, " does not exist");
    return positive;
  }

  std::array<int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

}  // namespace tessera
