// Tensor: a handle to dense row-major storage with a shape and an element type. Copies share storage; reshape
// is a view. There are no strided views: transposition exists only as a GEMM flag or inside an op.
//
// Data and gradient live apart: a closure on the tape that needs only dL/dy keeps y's gradient slot, and y's
// data goes back to the arena.
//
// A tensor lives on the device that was current when it was made. Its data is only given out where that
// device is current, so that no op can mix devices.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/device.h"
#include "engine/base/dims.h"
#include "engine/base/rng.h"
#include "engine/base/shape.h"
#include "engine/base/vec.h"
#include "engine/tensor/arena.h"
#include "engine/tensor/dtype.h"

namespace tessera {

namespace detail {

// Bytes of the arena or the heap, or a part of another tensor's (a parameter in a flat buffer).
class Memory {
 public:
  explicit Memory(int64_t bytes);
  Memory(void* part, const Device& device, std::shared_ptr<void> whole)
      : data_(part), device_(device), whole_(std::move(whole)) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const { return data_; }
  const Device& device() const { return device_; }

 private:
  void* data_ = nullptr;
  Device device_;
  Arena* arena_ = nullptr;
  std::shared_ptr<void> whole_;  // keeps a part's memory alive
  bool heap_ = false;
};

struct Storage {
  std::unique_ptr<Memory> memory;
  std::unique_ptr<Memory> copy;  // of f32 in bf16, or none
  uint32_t version = 0;          // counts the times that someone asked to write
};

struct Slot {
  Shape shape;
  DType dtype;
  bool written = false;
  int parameter = -1;  // index in the flat store: its gradient lives in the replica's buffer
  std::unique_ptr<Memory> memory;
};

}  // namespace detail

// Where a gradient goes: beta 0 overwrites (the memory may hold anything), 1 adds.
template <class T>
struct GradTarget {
  T* data = nullptr;
  Wide<T> beta = 0;
  TESSERA_FN explicit operator bool() const { return data != nullptr; }
  TESSERA_INLINE void put(int64_t i, Wide<T> value) const {
    data[i] = beta == Wide<T>(0) ? value : data[i] + value;
  }
  template <int n>
  TESSERA_INLINE void put(int64_t i, const Vec<Wide<T>, n>& values) const {
    Vec<T, n> sums{};
    if (beta != Wide<T>(0)) sums = load_vec<n>(data + i);
    for (int k = 0; k < n; ++k) sums.v[k] = beta == Wide<T>(0) ? values.v[k] : sums.v[k] + values.v[k];
    store_vec(data + i, sums);
  }
};

// The gradient slot of a tensor; empty where no gradient is wanted. (Copying and dropping one is compiled in
// tensor.cc, once, since closures do it in thousands of places; and so for a tensor.)
class Gradient {
 public:
  Gradient();
  Gradient(const Gradient&);
  Gradient(Gradient&&) noexcept;
  Gradient& operator=(const Gradient&);
  Gradient& operator=(Gradient&&) noexcept;
  ~Gradient();
  explicit Gradient(std::shared_ptr<detail::Slot> slot) : slot_(std::move(slot)) {}

  explicit operator bool() const { return slot_ != nullptr; }
  bool written() const;
  const Shape& shape() const { return slot_->shape; }
  DType dtype() const { return slot_->dtype; }

  // The gradient that arrived here; an error if none did.
  template <class T>
  const T* read() const {
    return static_cast<const T*>(read(dtype_of<T>()));
  }
  // Pointer and beta for the one writer that asks now; counts as written from here on.
  template <class T>
  GradTarget<T> target() const {
    GradTarget<T> to;
    if (slot_) {
      to.beta = written() ? Wide<T>(1) : Wide<T>(0);
      to.data = static_cast<T*>(open(dtype_of<T>()));
    }
    return to;
  }
  // Makes what arrived here, which nobody reads again, the first gradient of `input`. False, and nothing
  // is done, where another came before or it must lie elsewhere: then it is to be added or copied.
  bool give_to(const Gradient& input) const;

 private:
  friend class Tape;
  const void* read(DType type) const;
  void* open(DType type) const;

  std::shared_ptr<detail::Slot> slot_;
};

class Tensor {
 public:
  Tensor();
  Tensor(const Tensor&);
  Tensor(Tensor&&) noexcept;
  Tensor& operator=(const Tensor&);
  Tensor& operator=(Tensor&&) noexcept;
  ~Tensor();
  // Uninitialised, from the current arena (or the heap where there is none).
  Tensor(const Shape& shape, DType dtype);
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32);
  static Tensor of(const Shape& shape, const std::vector<float>& values);
  static Tensor of(const Shape& shape, const std::vector<double>& values);
  static Tensor of(const Shape& shape, const std::vector<int32_t>& values);
  // A tensor without memory, to be placed later in a flat buffer by all handles to it at once.
  static Tensor declare(const Shape& shape, DType dtype);
  void place(void* data, const Tensor& flat);
  // Beside f32 values their bf16 copy, which data<bf16>() gives: whoever writes the one writes the other.
  void place_copy(void* data, const Tensor& flat);
  // Parameter `index` of a flat store: its gradients go to the tape's parameter gradients.
  void make_parameter(int index);

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t size(int axis) const { return shape_[axis]; }
  int64_t count() const { return shape_.count(); }
  DType dtype() const { return dtype_; }
  // What products read it in: bf16 where it has such a copy.
  DType product_dtype() const { return storage_ && storage_->copy ? DType::bf16 : dtype_; }
  const Device& device() const;

  // Pointers for the current device, which must be the tensor's.
  template <class T>
  const T* data() const {
    return static_cast<const T*>(readable(dtype_of<T>()));
  }
  template <class T>
  T* mutable_data() {
    void* data = const_cast<void*>(checked(dtype_of<T>()));
    ++storage_->version;
    return static_cast<T*>(data);
  }
  // All elements, on the host, wherever the tensor lives; and the way back.
  template <class T>
  std::vector<T> values() const {
    std::vector<T> values(static_cast<size_t>(count()));
    download(dtype_of<T>(), values.data());
    return values;
  }
  template <class T>
  void assign(std::span<const T> values) {
    upload(dtype_of<T>(), values.data(), int64_t(values.size()));
  }
  // Any floating or integer element as a double, for prints and tests.
  double at(int64_t index) const;
  double item() const;

  // The same storage (and gradient) in another shape of the same count.
  Tensor reshape(const Shape& shape) const;
  // The same data without a gradient.
  Tensor detach() const;
  // A copy on the heap that outlives the step.
  Tensor clone() const;
  Tensor to(DType dtype) const;
  Tensor to(const Device& device) const;

  Tensor& require_grad();
  bool requires_grad() const { return slot_ != nullptr; }
  Gradient gradient() const { return Gradient(slot_); }
  // A copy of the gradient; an error if there is none.
  Tensor grad() const;
  // Forgets the gradient of a leaf, before the next backward pass.
  void clear_grad();
  // Fills the gradient's memory; backward adds to it if it counts as `written`, and overwrites it otherwise.
  void prefill_grad(double value, bool written);

  uint32_t version() const { return storage_->version; }

 private:
  friend class Tape;
  const void* readable(DType type) const;
  const void* checked(DType type) const;
  void check_type(DType type) const;
  void download(DType type, void* to) const;
  void upload(DType type, const void* from, int64_t count);
  Tensor copied(const detail::Memory& memory) const;

  std::shared_ptr<detail::Storage> storage_;
  std::shared_ptr<detail::Slot> slot_;
  Shape shape_;
  DType dtype_ = DType::f32;
};

// Uninitialised tensor of the same shape and type.
inline Tensor like(const Tensor& x) { return Tensor(x.shape(), x.dtype()); }

// Rows of numbers, long axes abridged.
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

}  // namespace tessera
