#include "cli/bench_ops.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/output.h"
#include "cuda/runtime.h"
#include "engine/kernels/gemm.h"
#include "engine/ops/ops.h"
#include "engine/tensor/arena.h"
#include "engine/tensor/memory.h"
#include "models/flops.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "optim/experts_averaging.h"

namespace tessera::cli {
namespace {

// Of one call: what it takes, and the least that it must read and write and multiply and add.
struct Cost {
  std::string name;
  double seconds = 0;
  int64_t bytes = 0, flops = 0;
};

int64_t bytes_of(const Tensor& x) { return x.count() * bytes(x.product_dtype()); }

// Seconds of f(), the least of three turns of so many calls that the clock and the last wait do not count.
template <class F>
double seconds_of(F f) {
  constexpr double kEnough = 0.02;
  const auto turn = [&](int64_t calls) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < calls; ++i) f();
    if (Device::current().is_cuda()) cuda::synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  for (int i = 0; i < 3; ++i) turn(1);  // until memory is planned and algorithms are found
  int64_t calls = 1;
  while (turn(calls) < kEnough) calls *= 2;
  return std::min({turn(calls), turn(calls), turn(calls)}) / double(calls);
}

class OpsBench {
 public:
  OpsBench(const RunConfig& config, int64_t batch)
      : c_(config.model), half_(Device::current().is_cuda() && config.train.dtype == "bf16"), B_(batch) {}

  std::vector<Cost> run() {
    measure_best();
    measure_blocks();
    measure_experts();
    measure_update();
    return costs_;
  }

 private:
  // Normal numbers: what flows through a block, what is always f32, and a parameter with its copy.
  Tensor wide_activation(const Shape& shape) {
    return normal_noise(shape, 1, {.stream = Stream::test, .site = ++site_}, 0, DType::f32).require_grad();
  }
  Tensor activation(const Shape& shape) {
    const Tensor x = wide_activation(shape);
    return half_ ? narrow(x.detach()).require_grad() : x;
  }
  Tensor parameter(const Shape& shape) {
    Tensor weight = wide_activation(shape);
    if (!half_) return weight;
    Tensor copy = narrow(weight.detach());
    weight.place_copy(copy.mutable_data<bf16>(), copy);
    return weight;
  }

  // y = run(), an op of these inputs, forward and backward; `flops` is the forward pass's.
  void measure(const std::string& name, std::vector<Tensor> inputs, const std::function<Tensor()>& run,
               int64_t flops = 0) {
    Arena arena;
    Tensor dy, scratch;
    int64_t read = 0, gradients = 0;
    for (const Tensor& x : inputs) {
      read += bytes_of(x);
      if (x.requires_grad()) gradients += x.count() * bytes(x.dtype());
    }
    {
      const Tensor y = run();
      dy = activation(y.shape()).detach();
      if (dy.dtype() != y.dtype()) dy = y.dtype() == DType::bf16 ? narrow(dy) : widen(dy);
      scratch = like(dy);
    }
    const auto seed = [&](void* to) {
      copy_memory(to, dy.device(), data_of(dy), dy.device(), size_t(bytes_of(dy)));
    };
    // Forward as while training; then dy is put in place, and its gradients follow from it.
    const auto step = [&](bool seeded, bool backward) {
      return seconds_of([&] {
        const Arena::Step in_arena(arena, uint64_t(backward));
        Tape tape;
        const Tape::Scope recording(&tape);
        Tensor y = run();
        if (seeded && !backward) seed(data_of(scratch));
        if (!backward) return;
        Tensor loss = Tensor::zeros({});
        record("seed", {y}, loss, [&, gy = y.gradient()](const Gradient&) { seed(target_of(gy)); });
        tape.backward(loss);
        for (Tensor& x : inputs) x.clear_grad();
      });
    };
    const double forward = step(false, false);
    costs_.push_back({name, forward, read + bytes_of(dy), flops});
    const double backward = step(true, true) - step(true, false);
    // A difference within the spread of its terms says nothing.
    costs_.push_back({name + ", backward", backward > 0.1 * forward ? backward : NAN,
                      read + bytes_of(dy) + gradients, 2 * flops});
  }
  static void* data_of(Tensor& x) {
    void* data = nullptr;
    for_activation("bench", x.dtype(), [&]<class T>() { data = x.mutable_data<T>(); });
    return data;
  }
  static void* target_of(const Gradient& gradient) {
    void* data = nullptr;
    for_activation("bench", gradient.dtype(), [&]<class T>() { data = gradient.target<T>().data; });
    return data;
  }

  // A large copy, and a large product in the type of the ops'.
  void measure_best() {
    const bool card = Device::current().is_cuda();
    const int64_t n = int64_t{card ? 64 : 16} << 20, side = card ? 8192 : 1024;
    Tensor from = wide_activation({n}).detach(), to({n}, DType::f32);
    costs_.push_back({"copy", seconds_of([&] { copy(to.mutable_data<float>(), from.data<float>(), n); }),
                      2 * n * int64_t(sizeof(float))});
    const auto multiply = [&]<class T>() {
      const Tensor a = activation({side, side}).detach(), b = activation({side, side}).detach();
      Tensor c = like(a);
      const Gemm<T> product{
          .m = side, .n = side, .k = side, .a = a.data<T>(), .b = b.data<T>(), .c = c.mutable_data<T>()};
      costs_.push_back(
          {"product", seconds_of([&] { gemm(product); }), 3 * bytes_of(a), 2 * side * side * side});
    };
    half_ ? multiply.template operator()<bf16>() : multiply.template operator()<float>();
  }

  void measure_blocks() {
    const int64_t N = c_.tokens(), C = c_.dim, O = hidden(), H = c_.heads, K = c_.classes, M = B_ * N;
    {
      const Tensor x = wide_activation({B_, N, C}), gamma = parameter({C}), beta = parameter({C});
      measure("layer_norm", {x, gamma, beta}, [=] { return layer_norm_operand(x, gamma, beta); });
    }
    {
      const Tensor x = activation({B_, N, C}), weight = parameter({3 * C, C}), bias = parameter({3 * C});
      measure(
          "linear", {x, weight, bias}, [=] { return linear(x, weight, bias); }, 2 * M * 3 * C * C);
    }
    {
      const Tensor qkv = activation({B_, N, 3, H, C / H});
      measure(
          "attention", {qkv}, [=] { return attention(qkv); }, 4 * M * N * C);
    }
    {
      const Tensor x = activation({B_, N, O}), weight = parameter({C, O}), bias = parameter({C});
      const Tensor residual = wide_activation({B_, N, C});
      measure(
          "linear_residual", {x, weight, bias, residual},
          [=] { return linear_residual(x, weight, bias, residual); }, 2 * M * C * O);
    }
    {
      const Tensor x = activation({B_, N, C}), weight = parameter({O, C}), bias = parameter({O});
      measure(
          "linear_gelu", {x, weight, bias}, [=] { return linear_gelu(x, weight, bias); }, 2 * M * C * O);
    }
    {
      const Tensor x = activation({B_, N, C});
      measure("dropout", {x}, [=] { return dropout(x, 0.1, {.stream = Stream::dropout}, 0); });
    }
    {
      const Tensor logits = wide_activation({B_, K});
      Tensor labels({B_}, DType::i32);
      labels.assign(std::span<const int32_t>(std::vector<int32_t>(size_t(B_), 0)));
      measure("softmax_cross_entropy", {logits, labels},
              [=] { return softmax_cross_entropy(logits, labels); });
    }
  }

  void measure_experts() {
    const int64_t E = c_.moe.experts, N = c_.tokens(), C = c_.dim, O = hidden(), M = B_ * N;
    const Dispatch dispatch = random_partition(PartitionScope::batch, E, B_, N, {.training = true}, 0);
    const Tensor order = dispatch.order;
    {
      const Tensor x = activation({M, C});
      measure("permute_rows", {x, order}, [=] { return permute_rows(x, order); });
    }
    {
      const Tensor x = activation({M, C}), residual = wide_activation({B_, N, C});
      measure("combine_rows", {x, order, residual}, [=] { return combine_rows(x, order, residual); });
    }
    {
      const Tensor x = activation({M, C}), weight = parameter({E, O, C}), bias = parameter({E, O});
      measure(
          "grouped_linear_gelu", {x, weight, bias},
          [=, offsets = dispatch.offsets] { return grouped_linear_gelu(x, weight, bias, offsets); },
          2 * M * C * O);
    }
    Tensor stacked = wide_activation({E, O, C}).detach(), numbers = there({.share_rate = 0.01});
    const StackedParameter all{0, E, O * C};
    costs_.push_back({"averaging of experts", seconds_of([&] {
                        average_experts<float>(stacked.mutable_data<float>(), {&all, 1}, numbers_in(numbers));
                      }),
                      2 * bytes_of(stacked)});
  }

  // What follows the gradient, at the model's number of parameters.
  void measure_update() {
    const int64_t count = cost(c_).parameters;
    Tensor weights = wide_activation({count}).detach(), gradients = wide_activation({count}).detach();
    Tensor copies = half_ ? narrow(weights) : Tensor(), numbers = there({.lr = 1e-6}), sums;
    Tensor norm({1}, DType::f64);
    AdamW<float> adamw({}, count);
    FlatParameters<float> flat{weights.mutable_data<float>(), gradients.data<float>(), count, count / 2};
    if (half_) flat.copies = copies.mutable_data<bf16>();
    const int64_t own = bytes_of(weights);
    costs_.push_back({"adamw", seconds_of([&] { adamw.step(flat, numbers_in(numbers)); }),
                      7 * own + (half_ ? bytes_of(copies) : 0)});
    costs_.push_back({"gradient norm", seconds_of([&] {
                        put_norm(gradients.data<float>(), count, sums, norm.mutable_data<double>());
                      }),
                      own});
  }

  // A step's numbers, where its programs read them.
  static Tensor there(const StepNumbers& numbers) {
    Tensor block({int64_t(sizeof numbers)}, DType::u8);
    block.assign(std::span(reinterpret_cast<const uint8_t*>(&numbers), sizeof numbers));
    return block;
  }
  static const StepNumbers* numbers_in(const Tensor& block) {
    return reinterpret_cast<const StepNumbers*>(block.data<uint8_t>());
  }
  int64_t hidden() const { return c_.hidden(c_.dim); }

  const ModelConfig c_;
  const bool half_;  // bf16
  const int64_t B_;
  uint32_t site_ = 0;
  std::vector<Cost> costs_;
};

}  // namespace

int bench_ops(const RunConfig& config, int64_t batch, bool json) {
  TESSERA_CHECK_AS(Exit::usage, config.model.architecture == "vit", "--mode ops: ", config.model.name,
                   " is of the architecture ", config.model.architecture,
                   ", and the ops are those of a vit; use --model vit_small_image_32");
  if (Device::current().is_cuda()) cuda::use_tf32() = config.train.dtype != "f32";
  const std::vector<Cost> costs = OpsBench(config, batch).run();
  const double bandwidth = double(costs[0].bytes) / costs[0].seconds;
  const double rate = double(costs[1].flops) / costs[1].seconds;
  nlohmann::ordered_json all;
  Table table("lrrrrr");
  table.add({"op", "us", "GB/s", "of a copy", "GFLOP/s", "of a product"});
  for (const Cost& c : costs) {
    const double moved = double(c.bytes) / c.seconds, done = double(c.flops) / c.seconds;
    all.push_back({{"op", c.name},
                   {"us", c.seconds * 1e6},
                   {"bytes", c.bytes},
                   {"flops", c.flops},
                   {"share_of_copy", moved / bandwidth},
                   {"share_of_product", done / rate}});
    if (std::isnan(c.seconds)) {
      table.add({c.name, "-", "-", "-", "-", "-"});
      continue;
    }
    table.add({c.name, fixed(c.seconds * 1e6, 1), fixed(moved / 1e9, 1), percent(moved / bandwidth),
               c.flops ? fixed(done / 1e9, 1) : "", c.flops ? percent(done / rate) : ""});
  }
  json ? print_json({{"model", config.model.name},
                     {"batch", batch},
                     {"device", text(Device::current())},
                     {"dtype", config.train.dtype},
                     {"ops", all}})
       : table.print();
  return 0;
}

}  // namespace tessera::cli
