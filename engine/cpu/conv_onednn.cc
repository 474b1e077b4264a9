// Convolution in f32 through oneDNN, 2.6 or 3.x. The primitive chooses the layouts (blocked ones are 2 to 4
// times faster than ours); what differs from ours is reordered on the way in and out.
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/parallel.h"
#include "engine/kernels/backends.h"
#include "engine/tensor/tensor.h"

namespace tessera {
namespace {

using dnnl::memory;

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

// oneDNN's own scratchpad is shared by the threads that run a primitive; ours belongs to the call.
dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

// The descriptor of primitive P. `hint` is that of the forward convolution, null for the forward one itself.
template <class P, class Hint, class... Arguments>
typename P::primitive_desc describe(const Hint& hint, const Arguments&... arguments) {
  constexpr bool forward = std::is_null_pointer_v<Hint>;
#if DNNL_VERSION_MAJOR >= 3
  if constexpr (forward)
    return {engine(), arguments..., user_scratchpad()};
  else
    return {engine(), arguments..., hint, user_scratchpad()};
#else
  const typename P::desc operation(arguments...);
  if constexpr (forward)
    return {operation, user_scratchpad(), engine()};
  else
    return {operation, user_scratchpad(), engine(), hint};
#endif
}

// An argument of a primitive: our layout, and the one that the primitive wants.
struct Operand {
  int argument;
  memory::desc ours, wanted;
};

// A primitive with its reorders, ready to run on this thread.
class Plan {
 public:
  Plan() = default;

  template <class Descriptor>
  Plan(const Descriptor& descriptor, const std::vector<Operand>& inputs, const Operand& output,
       bool accumulate) {
    Arguments arguments;
    for (const Operand& input : inputs) {
      const memory from = external(input.ours);
      arguments[input.argument] = from;
      if (input.ours == input.wanted) continue;
      const memory to = internal(input.wanted);
      arguments[input.argument] = to;
      add_reorder(from, to, user_scratchpad());
    }
    const memory to = external(output.ours);
    const bool direct = output.ours == output.wanted && !accumulate;
    const memory from = direct ? to : internal(output.wanted);
    arguments[output.argument] = from;
    add(descriptor, arguments);
    if (direct) return;
    dnnl::primitive_attr attributes = user_scratchpad();
    dnnl::post_ops post;
    if (accumulate) post.append_sum(1.0f);
    attributes.set_post_ops(post);
    add_reorder(from, to, attributes);
  }

  // `tensors`: the addresses of the inputs in their order, then of the output.
  void run(const std::vector<const float*>& tensors) {
    // From the step's arena: pages that the rest of the step uses too.
    Tensor scratch({bytes_}, DType::u8);
    uint8_t* const base = scratch.mutable_data<uint8_t>();
    for (size_t i = 0; i < external_.size(); ++i)
      external_[i].set_data_handle(const_cast<float*>(tensors[i]));
    for (const auto& [buffer, offset] : internal_) buffer.set_data_handle(base + offset);
    thread_local dnnl::stream stream(engine());
    for (const auto& [primitive, arguments] : stages_) primitive.execute(stream, arguments);
    stream.wait();
  }

 private:
  using Arguments = std::unordered_map<int, memory>;

  memory external(const memory::desc& layout) {
    return external_.emplace_back(memory(layout, engine(), DNNL_MEMORY_NONE));
  }
  memory internal(const memory::desc& layout) {
    constexpr int64_t kAlignment = 64;
    internal_.emplace_back(memory(layout, engine(), DNNL_MEMORY_NONE), bytes_);
    bytes_ += (int64_t(layout.get_size()) + kAlignment - 1) / kAlignment * kAlignment;
    return internal_.back().first;
  }
  template <class Descriptor>
  void add(const Descriptor& descriptor, Arguments arguments) {
    if (descriptor.scratchpad_desc().get_size() > 0)
      arguments[DNNL_ARG_SCRATCHPAD] = internal(descriptor.scratchpad_desc());
    stages_.emplace_back(dnnl::primitive(descriptor.get()), std::move(arguments));
  }
  void add_reorder(const memory& from, const memory& to, const dnnl::primitive_attr& attributes) {
    add(dnnl::reorder::primitive_desc(engine(), from.get_desc(), engine(), to.get_desc(), attributes),
        {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
  }

  std::vector<std::pair<dnnl::primitive, Arguments>> stages_;
  std::vector<memory> external_;
  std::vector<std::pair<memory, int64_t>> internal_;  // with offsets in the scratch
  int64_t bytes_ = 0;
};

enum class Kind { forward, forward_bias, data_gradient, weight_gradient };

Plan make_plan(const ConvShape& s, Kind kind, bool accumulate) {
  using Tag = memory::format_tag;
  constexpr auto f32 = memory::data_type::f32;
  constexpr auto direct = dnnl::algorithm::convolution_direct;
  const memory::dims x{s.B, s.C, s.H, s.W}, w{s.O, s.C, s.h, s.w}, y{s.B, s.O, s.out_height(), s.out_width()};
  const memory::dims stride{s.stride, s.stride}, padding{s.padding, s.padding};
  const memory::desc our_x(x, f32, Tag::nchw), our_w(w, f32, Tag::oihw), our_y(y, f32, Tag::nchw);
  const memory::desc any_x(x, f32, Tag::any), any_w(w, f32, Tag::any), any_y(y, f32, Tag::any);
  const memory::desc bias = kind == Kind::forward_bias ? memory::desc({s.O}, f32, Tag::a) : memory::desc();

  const auto forward =
      describe<dnnl::convolution_forward>(nullptr, dnnl::prop_kind::forward_training, direct, any_x, any_w,
                                          bias, any_y, stride, padding, padding);
  if (kind == Kind::data_gradient) {
    const auto data = describe<dnnl::convolution_backward_data>(forward, direct, any_x, any_w, any_y, stride,
                                                                padding, padding);
    return {
        data,
        {{DNNL_ARG_WEIGHTS, our_w, data.weights_desc()}, {DNNL_ARG_DIFF_DST, our_y, data.diff_dst_desc()}},
        {DNNL_ARG_DIFF_SRC, our_x, data.diff_src_desc()},
        accumulate};
  }
  if (kind == Kind::weight_gradient) {
    const auto weights = describe<dnnl::convolution_backward_weights>(forward, direct, any_x, any_w, any_y,
                                                                      stride, padding, padding);
    return {weights,
            {{DNNL_ARG_SRC, our_x, weights.src_desc()}, {DNNL_ARG_DIFF_DST, our_y, weights.diff_dst_desc()}},
            {DNNL_ARG_DIFF_WEIGHTS, our_w, weights.diff_weights_desc()},
            accumulate};
  }
  std::vector<Operand> inputs{{DNNL_ARG_SRC, our_x, forward.src_desc()},
                              {DNNL_ARG_WEIGHTS, our_w, forward.weights_desc()}};
  if (kind == Kind::forward_bias) inputs.push_back({DNNL_ARG_BIAS, bias, bias});
  return {forward, inputs, {DNNL_ARG_DST, our_y, forward.dst_desc()}, accumulate};
}

// Sets how many threads oneDNN plans for while it lives.
class PlanningThreads {
 public:
  explicit PlanningThreads(int threads) : former_(thread_count()) { set_thread_count(threads); }
  ~PlanningThreads() { set_thread_count(former_); }
  PlanningThreads(const PlanningThreads&) = delete;
  PlanningThreads& operator=(const PlanningThreads&) = delete;

 private:
  int former_;
};

// This thread's plan for a shape. A primitive is planned for the threads that will run it, and computes wrong
// with others: in a replica that is one.
Plan& plan_for(const ConvShape& shape, Kind kind, bool accumulate) {
  constexpr size_t kMostPlans = 256;
  using Key = std::tuple<ConvShape, Kind, bool, int>;
  thread_local std::map<Key, Plan> plans;
  const int threads = omp_in_parallel() ? 1 : thread_count();
  const Key key{shape, kind, accumulate, threads};
  if (const auto known = plans.find(key); known != plans.end()) return known->second;
  if (plans.size() >= kMostPlans) plans.clear();
  const PlanningThreads limit(threads);
  return plans.emplace(key, make_plan(shape, kind, accumulate)).first->second;
}

}  // namespace

template <>
void cpu::conv_forward(const ConvShape& shape, const float* x, const float* weight, const float* bias,
                       float* y) {
  if (bias)
    plan_for(shape, Kind::forward_bias, false).run({x, weight, bias, y});
  else
    plan_for(shape, Kind::forward, false).run({x, weight, y});
}

template <>
void cpu::conv_data_gradient(const ConvShape& shape, const float* weight, const float* dy, float* dx,
                             float beta) {
  plan_for(shape, Kind::data_gradient, beta != 0).run({weight, dy, dx});
}

template <>
void cpu::conv_weight_gradient(const ConvShape& shape, const float* x, const float* dy, float* dweight,
                               float beta) {
  plan_for(shape, Kind::weight_gradient, beta != 0).run({x, dy, dweight});
}

}  // namespace tessera
