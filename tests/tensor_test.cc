// Shapes and tensors, the rules of the tape, and the arena's plans.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "engine/base/dims.h"
#include "engine/ops/ops.h"
#include "engine/tensor/arena.h"
#include "engine/tensor/tape.h"
#include "engine/tensor/tensor.h"
#include "tests/messages.h"

namespace tessera {
namespace {

template <class F>
std::string message_of(F&& f) {
  return testing::error_of(f).message;
}

std::vector<double> values(const Tensor& x) {
  std::vector<double> all;
  for (int64_t i = 0; i < x.count(); ++i) all.push_back(x.at(i));
  return all;
}

TEST_CASE("shapes say what is wrong") {
  const Shape shape{2, 3, 4};
  CHECK(shape[-1] == 4);
  CHECK(shape.count() == 24);
  CHECK(shape.count(1, 3) == 12);
  CHECK(Shape{}.count() == 1);
  CHECK(Shape{0, 5}.count() == 0);
  CHECK(Shape{1, 2} != Shape{2, 1});
  CHECK(Shape{1, 2} != Shape{1, 2, 1});
  CHECK(message_of([&] { shape[3]; }) == "shape: axis 3 of (2,3,4) does not exist");
  CHECK(message_of([&] { shape[-4]; }) == "shape: axis -4 of (2,3,4) does not exist");
  CHECK(message_of([] { Shape{1, -2}; }) == "shape: negative size -2");
  CHECK(message_of([] { Shape{1, 1, 1, 1, 1, 1, 1}; }) == "shape: more than 6 axes");
  const Shape huge{int64_t{1} << 40, int64_t{1} << 40};
  CHECK(message_of([&] { huge.count(); }) ==
        "shape: (1099511627776,1099511627776) has more elements than fit in 63 bits");
}

TEST_CASE("letters bind sizes and must agree") {
  const Tensor x = Tensor::zeros({8, 65, 192}), weight = Tensor::zeros({576, 384});
  Dims dim("linear");
  CHECK(message_of([&] { dim(x, "x(*,C)")(weight, "weight(O,C)"); }) ==
        "linear: x(8,65,192) and weight(576,384) differ in C: 192 and 384");
  CHECK(dim['*'] == 8 * 65);
  CHECK(dim['O'] == 576);
  CHECK(message_of([&] { dim['K']; }) == "linear: no shape was given for the letter K");
  CHECK(message_of([&] { Dims("op")(x, "x(B,C)"); }) == "op: x(8,65,192) does not have the form x(B,C)");
  CHECK(message_of([&] { Dims("op")(x, "x(B,3,C)"); }) == "op: x(8,65,192) has 65 where 3 is needed");
  CHECK(message_of([&] { Dims("op")(weight, "w(C,C)"); }) ==
        "op: w(576,384) and w(576,384) differ in C: 576 and 384");
}

TEST_CASE("tensors hold one type and one shape of it") {
  const Tensor x = Tensor::of({2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(x.reshape({3, 2}).data<float>() == x.data<float>());
  CHECK(x.clone().data<float>() != x.data<float>());
  CHECK(x.to(DType::f64).data<double>()[5] == 6);
  CHECK(Tensor::full({2}, 0.5, DType::f64).at(1) == 0.5);
  CHECK(Tensor::of({}, std::vector<double>{7}).item() == 7);
  CHECK(message_of([&] { x.data<double>(); }) == "tensor: (2,3) holds f32, not f64");
  CHECK(message_of([&] { x.reshape({4}); }) == "reshape: (2,3) has 6 elements, (4) has 4");
  CHECK(message_of([&] { x.item(); }) == "item: (2,3) is not a single number");
  CHECK(message_of([&] { x.at(6); }) == "tensor: element 6 of (2,3) does not exist");
  CHECK(message_of([] { Tensor().data<float>(); }) == "tensor: data of an empty tensor was asked for");
  CHECK(message_of([] { Tensor::of({3}, std::vector<float>{1}); }) == "tensor: 1 values for the shape (3)");
  CHECK(message_of([&] { x.grad(); }) == "grad: no gradient has reached the tensor (2,3)");
  std::ostringstream printed;
  printed << x;
  CHECK(printed.str() == "f32(2,3)\n  1 2 3\n  4 5 6");
}

TEST_CASE("gradients of two uses add up") {
  Tensor x = Tensor::of({2}, std::vector<double>{3, -5}).require_grad();
  Tape tape;
  const Tape::Scope record(&tape);
  tape.backward(mean(add(mul(x, x), scale(x, 4))), 2);  // sum of x^2 + 4x
  CHECK(values(x.grad()) == std::vector<double>{2 * 3 + 4, 2 * -5 + 4});
  CHECK(tape.size() == 0);
  tape.backward(mean(x), 2);  // a second pass adds to a leaf that was not cleared
  CHECK(values(x.grad()) == std::vector<double>{11, -5});
  x.clear_grad();
  tape.backward(mean(x), 2);
  CHECK(values(x.grad()) == std::vector<double>{1, 1});
}

TEST_CASE("a residual's gradient is passed on, and added where it is not the only one") {
  const Tensor one = Tensor::of({1, 1}, std::vector<double>{1});
  Tape tape;
  const Tape::Scope record(&tape);
  Tensor r = Tensor::of({2, 1}, std::vector<double>{3, -5}).require_grad(), x = r.detach().require_grad();
  Tensor y = linear_residual(x, one, {}, r);  // x + r
  tape.backward(mean(y.reshape({2}), 0).reshape({1}));
  CHECK(values(r.grad()) == std::vector<double>{0.5, 0.5});
  CHECK(values(x.grad()) == std::vector<double>{0.5, 0.5});
  CHECK(message_of([&] { y.grad(); }) == "grad: no gradient has reached the tensor (2,1)");  // it is r's now

  r.clear_grad();
  y = linear_residual(r, one, {}, r);  // both are one tensor
  tape.backward(mean(y.reshape({2}), 0).reshape({1}));
  CHECK(values(r.grad()) == std::vector<double>{1, 1});

  for (const bool before : {true, false}) {  // used by another op, whose gradient comes before or after
    r.clear_grad();
    x.clear_grad();
    const Tensor other = before ? Tensor() : mul(r, r);
    y = linear_residual(x, one, {}, r);
    tape.backward(mean(mul(y, before ? mul(r, r) : other).reshape({2}), 0).reshape({1}));
    // d/dr (x + r) r^2 / 2 with x = r
    CHECK(values(r.grad()) == std::vector<double>{0.5 * (9 + 2 * 6 * 3), 0.5 * (25 + 2 * 10 * 5)});
    CHECK(values(x.grad()) == std::vector<double>{4.5, 12.5});
  }
}

TEST_CASE("nothing is recorded without a tape, or for constants") {
  Tensor x = Tensor::full({2}, 1).require_grad();
  CHECK_FALSE(mul(x, x).requires_grad());
  Tape tape;
  const Tape::Scope record(&tape);
  mul(x.detach(), x.detach());
  CHECK(tape.size() == 0);
  {
    const Tape::Scope off(nullptr);
    mul(x, x);
  }
  CHECK(tape.size() == 0);
  CHECK(mul(x, x).requires_grad());
  CHECK(tape.size() == 1);
}

TEST_CASE("backward needs one number that depends on a leaf") {
  Tensor x = Tensor::full({2}, 1).require_grad();
  Tape tape;
  const Tape::Scope record(&tape);
  CHECK(message_of([&] { tape.backward(mul(x, x)); }) ==
        "backward: the loss must be a single number, got (2); take its mean or sum first");
  CHECK(message_of([&] { tape.backward(mean(x.detach())); }) ==
        "backward: the loss does not depend on anything that requires a gradient");
}

TEST_CASE("what the loss does not depend on is skipped, and its closure freed") {
  Tensor x = Tensor::full({2}, 1).require_grad();
  Tape tape;
  const Tape::Scope record(&tape);
  Tensor loss = mean(x), unread = Tensor::zeros({2});
  bool ran = false;
  const auto kept = std::make_shared<int>(0);
  tessera::record("unread", {x}, unread, [&ran, kept](const Gradient&) { ran = true; });
  CHECK(kept.use_count() == 2);
  tape.backward(loss);
  CHECK_FALSE(ran);
  CHECK(kept.use_count() == 1);
}

TEST_CASE("an op without a gradient refuses inputs that want one") {
  Tensor x = Tensor::full({2}, 1).require_grad();
  CHECK_NOTHROW(refuse_gradient("round", {x}));  // nothing records
  Tape tape;
  const Tape::Scope record(&tape);
  CHECK_NOTHROW(refuse_gradient("round", {x.detach()}));
  CHECK(message_of([&] { refuse_gradient("round", {x}); }) ==
        "round: has no gradient, but its input (2) requires one; pass detach(x) if that is meant");
  Tensor soft = Tensor::full({1, 2}, 0.5).require_grad();
  CHECK(message_of([&] {
          softmax_cross_entropy(x.reshape({1, 2}), soft);
        }).starts_with("softmax_cross_entropy (targets): has no gradient"));
}

TEST_CASE("a saved tensor that is overwritten is found in backward") {
  for (const bool overwrite_input : {true, false}) {
    Tensor x = Tensor::full({2}, 3).require_grad();
    Tape tape;
    const Tape::Scope record(&tape);
    Tensor y = relu(x);
    const Tensor loss = mean(mul(y, y));
    (overwrite_input ? x : y).mutable_data<float>()[0] = 0;
    CHECK(message_of([&] { tape.backward(loss); }) ==
          text("backward: ", overwrite_input ? "relu" : "mul",
               ": a tensor that it saved was overwritten after the forward pass"));
  }
}

TEST_CASE("an op that breaks its promises is named") {
  Tensor a = Tensor::full({2, 3}, 1).require_grad(), b = Tensor::full({4}, 1).require_grad();
  Tape tape;
  const Tape::Scope record(&tape);
  const auto broken = [&](Tape::Closure closure) {
    Tensor y = Tensor::full({}, 1);
    tessera::record("broken", {a, b}, y, std::move(closure));
    return message_of([&] { tape.backward(y); });
  };
  CHECK(broken([ga = a.gradient()](const Gradient&) { ga.target<float>().put(0, 1); }) ==
        "backward: broken did not write the gradient of its input (4)");
  CHECK(broken([ga = a.gradient()](const Gradient&) { ga.target<double>(); }) ==
        "backward: a gradient of f32 was written as f64");
  CHECK(broken([](const Gradient& gy) { gy.read<double>(); }) ==
        "backward: a gradient of f32 was read as f64");
  CHECK(broken([gb = b.gradient()](const Gradient&) { gb.read<float>(); }) ==
        "backward: a gradient was read that no op has written");
}

TEST_CASE("a model's parameters collect their gradients in one buffer") {
  Tensor w = Tensor::full({2}, 3, DType::f64);
  w.make_parameter(0);
  Tape tape;
  const Tape::Scope record(&tape);
  CHECK(message_of([&] { tape.backward(mean(mul(w, w))); }) ==
        "backward: a model's parameter needs a ParameterGradients::Scope on this thread");
  ParameterGradients gradients({2}, 5, DType::f64);
  const ParameterGradients::Scope collect(gradients);
  tape.backward(mean(mul(w, w)));
  CHECK(values(gradients.flat()) == std::vector<double>{0, 0, 3, 3, 0});
  gradients.clear();
  CHECK_FALSE(gradients.written(0));
  gradients.fill_unwritten({2});
  CHECK(values(gradients.flat()) == std::vector<double>{0, 0, 0, 0, 0});
}

// ---- the arena

// One step of some ops; the addresses of what it made.
std::vector<const float*> some_step(Arena& arena, int64_t n) {
  const Arena::Step step(arena, 1);
  std::vector<const float*> at;
  Tensor x = Tensor::full({n}, 2);
  for (int i = 0; i < 8; ++i) {
    x = mul(x, x.reshape({n}));
    at.push_back(x.data<float>());
    const Tensor aside = Tensor::zeros({n / 2});
    at.push_back(aside.data<float>());
  }
  return at;
}

TEST_CASE("a plan replays at the same addresses, in a slab smaller than the sum of its blocks") {
  Arena arena;
  constexpr int64_t kN = 1 << 20;
  CHECK(arena.slab_bytes() == 0);
  some_step(arena, kN);
  const auto first = some_step(arena, kN);
  const int64_t unplanned = arena.unplanned_blocks();
  CHECK(unplanned >= 17);
  CHECK(some_step(arena, kN) == first);
  CHECK(arena.unplanned_blocks() == unplanned);
  // Three tensors live at most, of 17 and 8 half ones.
  CHECK(arena.slab_bytes() >= size_t(kN) * 4 * 2);
  CHECK(arena.slab_bytes() <= size_t(kN) * 4 * 3);
  // Another kind of step has a plan of its own and leaves the first as it is.
  {
    const Arena::Step step(arena, 2);
    Tensor::zeros({3});
  }
  CHECK(some_step(arena, kN) == first);
  // A deviation is answered, and the step planned anew.
  some_step(arena, kN / 2);
  CHECK(arena.unplanned_blocks() > unplanned);
  some_step(arena, kN / 2);
  const auto again = some_step(arena, kN / 2);
  CHECK(some_step(arena, kN / 2) == again);
}

TEST_CASE("tensors outside a step, and those that outlive it, stay good") {
  Arena arena;
  const Tensor outside = Tensor::full({1000}, 5);
  Tensor outliving;
  for (int i = 0; i < 4; ++i) {
    const Arena::Step step(arena, 1);
    const Tensor held = std::exchange(outliving, {});
    const Tensor x = Tensor::full({1000}, i), y = Tensor::full({1000}, 10 + i);
    outliving = i == 3 ? Tensor() : y;
    for (int64_t j = 0; j < 1000; j += 333) {
      CHECK(x.at(j) == i);
      if (held) CHECK(held.at(j) == 9 + i);
    }
  }
  const Tensor copy = [&] {
    const Arena::Step step(arena, 1);
    return Tensor::full({4}, 2).clone();  // clones live on the heap
  }();
  CHECK(copy.at(3) == 2);
  CHECK(outside.at(999) == 5);
  {  // after a copy that fails, too
    const Arena::Step step(arena, 2);
    CHECK_THROWS_AS(outside.to(Device{Device::Kind::cuda, 1 << 20}), Error);
    CHECK(Arena::current() == &arena);
  }
  CHECK(message_of([&] { arena.release(nullptr); }) ==
        "arena: a block was released twice or belongs to another arena");
}

// Random sequences of allocations and releases. Each step follows one of a few scripts, but may leave it
// anywhere; blocks are filled with bytes of their own and looked at before they go.
class RandomSteps {
 public:
  explicit RandomSteps(uint64_t seed) : draw_{.seed = seed} {}

  void step(uint64_t key, bool deviate, bool outlive) {
    arena_.begin_step(key);
    const uint32_t events = 60, leave = deviate ? below(events) : events;
    for (uint32_t event = 0; event < events; ++event) {
      // The script is a function of key and event until the step leaves it.
      const Draw script{.seed = key, .step = event < leave ? 0 : ++salt_, .site = event};
      const auto words = script.block(0);
      if (blocks_.size() <= alive_before_ || words[0] % 5 < 3)
        allocate(1 + words[1] % (words[2] % 4 == 0 ? 100000 : 300));
      else
        release(alive_before_ + words[1] % (blocks_.size() - alive_before_));
    }
    while (blocks_.size() > (outlive ? alive_before_ + 2 : alive_before_)) release(blocks_.size() - 1);
    if (below(2))
      while (!blocks_.empty()) release(0);
    alive_before_ = blocks_.size();
    arena_.end_step();
  }
  void finish() {
    while (!blocks_.empty()) release(0);
    alive_before_ = 0;
  }
  uint32_t below(uint32_t n) { return draw_.below(n, next_++); }
  int wrong() const { return wrong_; }

 private:
  struct Block {
    unsigned char* data;
    size_t bytes;
    unsigned char fill;
  };

  void allocate(size_t bytes) {
    auto* data = static_cast<unsigned char*>(arena_.allocate(bytes));
    if (reinterpret_cast<uintptr_t>(data) % 64 != 0) ++wrong_;
    const auto fill = static_cast<unsigned char>(++filled_ % 251);
    std::memset(data, fill, bytes);
    blocks_.push_back({data, bytes, fill});
  }
  void release(size_t index) {
    const Block block = blocks_[index];
    for (size_t i = 0; i < block.bytes; ++i)
      if (block.data[i] != block.fill) {
        ++wrong_;
        break;
      }
    arena_.release(block.data);
    blocks_.erase(blocks_.begin() + int64_t(index));
    if (index < alive_before_) --alive_before_;
  }

  Arena arena_;
  Draw draw_;
  std::vector<Block> blocks_;
  size_t alive_before_ = 0;
  uint64_t next_ = 0, filled_ = 0;
  uint32_t salt_ = 0;
  int wrong_ = 0;
};

TEST_CASE("no two live blocks ever overlap, whatever a step does") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    RandomSteps steps(seed);
    for (int i = 0; i < 60; ++i) steps.step(steps.below(3), steps.below(3) == 0, steps.below(8) == 0);
    steps.finish();
    CHECK(steps.wrong() == 0);
  }
}

// Forward and backward in an arena, and the first gradients of a step cut short by an error.
TEST_CASE("training steps in an arena give the bits of steps on the heap") {
  const auto gradient = [](Arena* arena, int64_t B, bool fail) {
    std::vector<double> result;
    const auto run = [&] {
      Tensor w = Tensor::of({2, 3}, std::vector<float>{1, -2, 3, 4, 0, 1}).require_grad();
      Tape tape;
      const Tape::Scope record(&tape);
      Tensor x({B, 3}, DType::f32);
      for (int64_t i = 0; i < x.count(); ++i) x.mutable_data<float>()[i] = float(i % 7) - 3;
      const Tensor y = gelu(linear(x, w));
      TESSERA_CHECK(!fail, "cut short");
      tape.backward(mean(mul(y, y)));
      result = values(w.grad());
    };
    if (!arena) {
      run();
      return result;
    }
    const Arena::Step step(*arena, uint64_t(B));
    run();
    return result;
  };
  Arena arena;
  for (int repeat = 0; repeat < 4; ++repeat)
    for (const int64_t B : {5, 64, 1}) {
      CHECK(gradient(&arena, B, false) == gradient(nullptr, B, false));
      if (repeat == 2) CHECK(message_of([&] { gradient(&arena, B, true); }) == "cut short");
    }
}

}  // namespace
}  // namespace tessera
