#include "engine/tensor/tensor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "engine/tensor/tape.h"

namespace tessera {
namespace detail {

Memory::Memory(int64_t bytes) : arena_(Arena::current()) {
  if (arena_) {
    data_ = arena_->allocate(size_t(bytes));
    return;
  }
  heap_ = true;
  data_ = std::aligned_alloc(64, (size_t(std::max<int64_t>(bytes, 1)) + 63) / 64 * 64);
  TESSERA_CHECK_AS(Exit::device, data_, "out of memory: a tensor of ", bytes,
                   " bytes could not be allocated");
}

Memory::~Memory() {
  if (arena_) arena_->release(data_);
  if (heap_) std::free(data_);
}

}  // namespace detail

Tensor::Tensor(const Shape& shape, DType dtype) : shape_(shape), dtype_(dtype) {
  int64_t size = 0;
  TESSERA_CHECK_AS(Exit::device, !__builtin_mul_overflow(shape.count(), bytes(dtype), &size),
                   "out of memory: a tensor of ", shape, " cannot be addressed");
  storage_ = std::make_shared<detail::Storage>();
  storage_->memory = std::make_unique<detail::Memory>(size);
}

Tensor Tensor::zeros(const Shape& shape, DType dtype) {
  Tensor tensor(shape, dtype);
  std::memset(tensor.storage_->memory->data(), 0, size_t(shape.count() * bytes(dtype)));
  return tensor;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype) {
  Tensor tensor(shape, dtype);
  for_float("full", dtype,
            [&]<class T>() { std::fill_n(tensor.mutable_data<T>(), shape.count(), T(value)); });
  return tensor;
}

namespace {

template <class T>
Tensor from_values(const Shape& shape, const std::vector<T>& values) {
  TESSERA_CHECK(int64_t(values.size()) == shape.count(), "tensor: ", values.size(), " values for the shape ",
                shape);
  Tensor tensor(shape, dtype_of<T>());
  std::copy(values.begin(), values.end(), tensor.mutable_data<T>());
  return tensor;
}

}  // namespace

Tensor Tensor::of(const Shape& shape, const std::vector<float>& values) { return from_values(shape, values); }
Tensor Tensor::of(const Shape& shape, const std::vector<double>& values) {
  return from_values(shape, values);
}
Tensor Tensor::of(const Shape& shape, const std::vector<int32_t>& values) {
  return from_values(shape, values);
}

Tensor Tensor::declare(const Shape& shape, DType dtype) {
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.storage_ = std::make_shared<detail::Storage>();
  return tensor;
}

void Tensor::place(void* data, const Tensor& flat) {
  storage_->memory = std::make_unique<detail::Memory>(data, flat.storage_);
}

void Tensor::make_parameter(int index) {
  require_grad();
  slot_->parameter = index;
}

const void* Tensor::checked(DType type) const {
  TESSERA_CHECK(storage_ && storage_->memory, "tensor: data of an empty tensor was asked for");
  TESSERA_CHECK(type == dtype_, "tensor: ", shape_, " holds ", dtype_, ", not ", type);
  return storage_->memory->data();
}

double Tensor::at(int64_t index) const {
  TESSERA_CHECK(index >= 0 && index < count(), "tensor: element ", index, " of ", shape_, " does not exist");
  switch (dtype_) {
    case DType::f32:
      return double(data<float>()[index]);
    case DType::f64:
      return data<double>()[index];
    case DType::i32:
      return data<int32_t>()[index];
    case DType::u8:
      return data<uint8_t>()[index];
  }
  return 0;
}

double Tensor::item() const {
  TESSERA_CHECK(count() == 1, "item: ", shape_, " is not a single number");
  return at(0);
}

Tensor Tensor::reshape(const Shape& shape) const {
  TESSERA_CHECK(shape.count() == count(), "reshape: ", shape_, " has ", count(), " elements, ", shape,
                " has ", shape.count());
  Tensor view = *this;
  view.shape_ = shape;
  return view;
}

Tensor Tensor::detach() const {
  Tensor constant = *this;
  constant.slot_.reset();
  return constant;
}

Tensor Tensor::clone() const {
  Arena* const arena = std::exchange(Arena::current(), nullptr);
  Tensor copy(shape_, dtype_);
  Arena::current() = arena;
  std::memcpy(copy.storage_->memory->data(), storage_->memory->data(), size_t(count() * bytes(dtype_)));
  return copy;
}

Tensor Tensor::to(DType dtype) const {
  Tensor copy(shape_, dtype);
  for_float("to", dtype, [&]<class T>() {
    T* out = copy.mutable_data<T>();
    for (int64_t i = 0, n = count(); i < n; ++i) out[i] = T(at(i));
  });
  return copy;
}

Tensor& Tensor::require_grad() {
  if (!slot_) {
    slot_ = std::make_shared<detail::Slot>();
    slot_->shape = shape_;
    slot_->dtype = dtype_;
  }
  return *this;
}

Tensor Tensor::grad() const {
  TESSERA_CHECK(!slot_ || slot_->parameter < 0,
                "grad: the gradient of a model's parameter is in ParameterGradients");
  TESSERA_CHECK(slot_ && slot_->written, "grad: no gradient has reached the tensor ", shape_);
  Arena* const arena = std::exchange(Arena::current(), nullptr);
  Tensor copy(shape_, dtype_);
  Arena::current() = arena;
  std::memcpy(copy.storage_->memory->data(), slot_->memory->data(), size_t(count() * bytes(dtype_)));
  return copy;
}

void Tensor::clear_grad() {
  if (!slot_) return;
  slot_->written = false;
  slot_->memory.reset();
}

void Tensor::prefill_grad(double value, bool written) {
  for_float("prefill_grad", dtype_,
            [&]<class T>() { std::fill_n(gradient().target<T>().data, count(), T(value)); });
  slot_->written = written;
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor) return out << "Tensor()";
  out << name(tensor.dtype()) << tensor.shape();
  constexpr int64_t kRows = 6, kColumns = 8;
  const int64_t columns = tensor.rank() ? tensor.size(-1) : 1;
  const int64_t rows = columns ? tensor.count() / columns : 0;
  for (int64_t row = 0; row < std::min(rows, kRows); ++row) {
    out << "\n  ";
    for (int64_t column = 0; column < std::min(columns, kColumns); ++column)
      out << (column ? " " : "") << tensor.at(row * columns + column);
    if (columns > kColumns) out << " ...";
  }
  if (rows > kRows) out << "\n  ...";
  return out;
}

bool Gradient::written() const {
  if (!slot_) return false;
  return slot_->parameter < 0 ? slot_->written : ParameterGradients::current().written(slot_->parameter);
}

const void* Gradient::read(DType type) const {
  TESSERA_CHECK(slot_ && slot_->written, "backward: a gradient was read that no op has written");
  TESSERA_CHECK(type == slot_->dtype, "backward: a gradient of ", slot_->dtype, " was read as ", type);
  return slot_->memory->data();
}

void* Gradient::open(DType type) const {
  TESSERA_CHECK(type == slot_->dtype, "backward: a gradient of ", slot_->dtype, " was written as ", type);
  if (slot_->parameter >= 0) return ParameterGradients::current().open(slot_->parameter);
  slot_->written = true;
  if (!slot_->memory) slot_->memory = std::make_unique<detail::Memory>(slot_->shape.count() * bytes(type));
  return slot_->memory->data();
}

}  // namespace tessera
