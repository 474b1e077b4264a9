#include "engine/tensor/tensor.h"

#include <algorithm>
#include <utility>

#include "engine/tensor/memory.h"
#include "engine/tensor/tape.h"

namespace tessera {
namespace detail {

Memory::Memory(int64_t bytes) : device_(Device::current()) {
  if (Arena* const arena = Arena::current(); arena && arena->device() == device_) arena_ = arena;
  heap_ = !arena_;
  data_ = arena_ ? arena_->allocate(size_t(bytes)) : allocate_memory(device_, size_t(bytes), 64);
}

Memory::~Memory() {
  if (arena_) arena_->release(data_);
  if (heap_) release_memory(device_, data_);
}

}  // namespace detail

Gradient::Gradient() = default;
Gradient::Gradient(const Gradient&) = default;
Gradient::Gradient(Gradient&&) noexcept = default;
Gradient& Gradient::operator=(const Gradient&) = default;
Gradient& Gradient::operator=(Gradient&&) noexcept = default;
Gradient::~Gradient() = default;

Tensor::Tensor() = default;
Tensor::Tensor(const Tensor&) = default;
Tensor::Tensor(Tensor&&) noexcept = default;
Tensor& Tensor::operator=(const Tensor&) = default;
Tensor& Tensor::operator=(Tensor&&) noexcept = default;
Tensor::~Tensor() = default;

Tensor::Tensor(const Shape& shape, DType dtype) : shape_(shape), dtype_(dtype) {
  int64_t size = 0;
  TESSERA_CHECK_AS(Exit::device, !__builtin_mul_overflow(shape.count(), bytes(dtype), &size),
                   "out of memory: a tensor of ", shape, " cannot be addressed");
  storage_ = std::make_shared<detail::Storage>();
  storage_->memory = std::make_unique<detail::Memory>(size);
}

Tensor Tensor::zeros(const Shape& shape, DType dtype) {
  Tensor tensor(shape, dtype);
  zero(tensor.storage_->memory->data(), size_t(shape.count() * bytes(dtype)));
  return tensor;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype) {
  Tensor tensor(shape, dtype);
  for_float("full", dtype, [&]<class T>() { fill(tensor.mutable_data<T>(), shape.count(), T(value)); });
  return tensor;
}

namespace {

template <class T>
Tensor from_values(const Shape& shape, const std::vector<T>& values) {
  TESSERA_CHECK(int64_t(values.size()) == shape.count(), "tensor: ", values.size(), " values for the shape ",
                shape);
  Tensor tensor(shape, dtype_of<T>());
  tensor.assign(std::span<const T>(values));
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
  storage_->memory = std::make_unique<detail::Memory>(data, flat.device(), flat.storage_);
}

void Tensor::place_copy(void* data, const Tensor& flat) {
  storage_->copy = std::make_unique<detail::Memory>(data, flat.device(), flat.storage_);
}

void Tensor::make_parameter(int index) {
  require_grad();
  slot_->parameter = index;
}

const Device& Tensor::device() const {
  TESSERA_CHECK(storage_ && storage_->memory, "tensor: an empty tensor was asked for its device");
  return storage_->memory->device();
}

void Tensor::check_type(DType type) const {
  TESSERA_CHECK(storage_ && storage_->memory, "tensor: data of an empty tensor was asked for");
  TESSERA_CHECK(type == dtype_, "tensor: ", shape_, " holds ", dtype_, ", not ", type);
}

const void* Tensor::checked(DType type) const {
  check_type(type);
  TESSERA_CHECK_AS(Exit::device, device() == Device::current(), "tensor: ", shape_, " is on ", device(),
                   " and was asked for on ", Device::current(), "; bring it there by to(device)");
  return storage_->memory->data();
}

const void* Tensor::readable(DType type) const {
  const void* const own = checked(type == product_dtype() ? dtype_ : type);
  return type == dtype_ ? own : storage_->copy->data();
}

void Tensor::download(DType type, void* to) const {
  check_type(type);
  copy_memory(to, Device(), storage_->memory->data(), device(), size_t(count() * bytes(dtype_)));
}

void Tensor::upload(DType type, const void* from, int64_t size) {
  check_type(type);
  TESSERA_CHECK(size == count(), "tensor: ", size, " values for ", shape_);
  copy_memory(storage_->memory->data(), device(), from, Device(), size_t(size * bytes(dtype_)));
  ++storage_->version;
}

namespace {

template <class T>
double element(const void* data, int64_t index, const Device& device) {
  T value;
  copy_memory(&value, Device(), static_cast<const T*>(data) + index, device, sizeof value);
  return double(value);
}

}  // namespace

double Tensor::at(int64_t index) const {
  TESSERA_CHECK(index >= 0 && index < count(), "tensor: element ", index, " of ", shape_, " does not exist");
  check_type(dtype_);
  const void* const data = storage_->memory->data();
  switch (dtype_) {
    case DType::f32:
      return element<float>(data, index, device());
    case DType::f64:
      return element<double>(data, index, device());
    case DType::i32:
      return element<int32_t>(data, index, device());
    case DType::u8:
      return element<uint8_t>(data, index, device());
    case DType::bf16:
      return element<bf16>(data, index, device());
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

namespace {

// RAII: new tensors come from the heap.
class OnHeap {
 public:
  OnHeap() : arena_(std::exchange(Arena::current(), nullptr)) {}
  ~OnHeap() { Arena::current() = arena_; }
  OnHeap(const OnHeap&) = delete;
  OnHeap& operator=(const OnHeap&) = delete;

 private:
  Arena* arena_;
};

}  // namespace

// A copy on the current device's heap.
Tensor Tensor::copied(const detail::Memory& memory) const {
  const OnHeap heap;
  Tensor copy(shape_, dtype_);
  copy_memory(copy.storage_->memory->data(), copy.device(), memory.data(), memory.device(),
              size_t(count() * bytes(dtype_)));
  return copy;
}

Tensor Tensor::clone() const { return to(device()); }

Tensor Tensor::to(const Device& device) const {
  check_type(dtype_);
  const Device::Scope there(device);
  return copied(*storage_->memory);
}

Tensor Tensor::to(DType dtype) const {
  const Device::Scope there(device());
  Tensor copy(shape_, dtype);
  for_activation("to", dtype, [&]<class T>() {
    std::vector<T> values(static_cast<size_t>(count()));
    const Tensor source = device().is_cuda() ? to(Device()) : *this;
    for (int64_t i = 0, n = count(); i < n; ++i) values[size_t(i)] = T(source.at(i));
    copy.assign(std::span<const T>(values));
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
  const Device::Scope there(slot_->memory->device());
  return copied(*slot_->memory);
}

void Tensor::clear_grad() {
  if (!slot_) return;
  slot_->written = false;
  slot_->memory.reset();
}

void Tensor::prefill_grad(double value, bool written) {
  for_float("prefill_grad", dtype_, [&]<class T>() { fill(gradient().target<T>().data, count(), T(value)); });
  slot_->written = written;
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor) return out << "Tensor()";
  if (tensor.device().is_cuda()) return out << tensor.device() << ' ' << tensor.to(Device());
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

bool Gradient::give_to(const Gradient& input) const {
  detail::Slot &own = *slot_, &other = *input.slot_;
  if (!own.written || own.parameter >= 0 || other.parameter >= 0 || other.written || other.memory ||
      own.dtype != other.dtype || own.shape.count() != other.shape.count())
    return false;
  other.memory = std::move(own.memory);
  other.written = std::exchange(own.written, false);
  return true;
}

}  // namespace tessera
