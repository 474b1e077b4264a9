#include <cmath>
#include <limits>
#include <vector>

#include "engine/base/parallel.h"
#include "engine/cpu/micro_gemm.h"
#include "engine/kernels/backends.h"

// One head at a time, and of it one panel of queries at a time: up to kPanelPacks packs of them, whose scores
// against all keys stay in cache. Scores are kept transposed, S^T (keys, queries): the softmax then runs down
// the packs, with no reduction inside one, and S^T is read by broadcast, where a transpose costs nothing.
namespace tessera {

namespace {

int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

struct alignas(64) CacheLine {
  char bytes[64];
};

// Hands out arrays of a buffer that the thread keeps; `size` bounds what is taken of it in all.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    thread_local std::vector<CacheLine> buffer;
    if (const size_t lines = size_t(size) * sizeof(T) / 64 + kMaxArrays; buffer.size() < lines)
      buffer.resize(lines);
    next_ = buffer.data();
  }
  T* take(int64_t size) {
    T* array = reinterpret_cast<T*>(next_);
    next_ += divide_up(size * int64_t(sizeof(T)), 64);
    return array;
  }

 private:
  static constexpr size_t kMaxArrays = 16;
  CacheLine* next_;
};

// Panels of scores have room for P^T and, beside each row of it, the row of dS^T: the two are read and
// written together, and at a distance near 4096 bytes, loads would wait for stores that they only seem to
// overlap.
inline constexpr int64_t kPanelPacks = kPackBytes == 64 ? kMaxPacks : 9;  // the more, the longer are the sums
template <class T>
inline constexpr int64_t kPanel = kPanelPacks* kLanes<T>;
template <class T>
using PanelRow = std::integral_constant<int64_t, 2 * kPanel<T>>;
using One = std::integral_constant<int64_t, 1>;

// The left operands of the products: rows of tokens, a panel, and a panel's transpose.
template <class T>
using Rows = Strided<T, int64_t, One>;
template <class T>
using Panel = Strided<T, PanelRow<T>, One>;
template <class T>
using PanelTransposed = Strided<T, One, PanelRow<T>>;

// What the two passes know of the shape.
template <class T>
struct Layout {
  explicit Layout(const AttentionShape& shape) : shape(shape) {}

  const AttentionShape& shape;
  PackGroups panels{divide_up(shape.M(), kLanes<T>), kPanelPacks};      // of the queries
  int64_t row = 3 * shape.H * shape.D;                                  // from token to token in qkv
  int64_t out_row = shape.H * shape.D;                                  // the same in out
  int64_t padded = divide_up(shape.D, kLanes<T>) * kLanes<T>;           // D, rounded up
  int64_t padded_tokens = panels.packs * kLanes<T>;                     // M, rounded up
  int64_t max_width = std::min(panels.packs, kPanelPacks) * kLanes<T>;  // queries of a panel

  int64_t qkv_at(int64_t b, int64_t h) const { return b * shape.N * row + h * shape.D; }
  int64_t out_at(int64_t b, int64_t h) const { return b * shape.M() * out_row + h * shape.D; }
};

// to (rows, padded columns) = factor * from.
template <class T>
void copy_rows(const T* from, int64_t from_row, int64_t rows, int64_t columns, T factor, T* to,
               int64_t to_row) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t d = 0; d < to_row; d += kLanes<T>)
      store(to + i * to_row + d, load_part(from + i * from_row + d, columns - d) * factor);
}

// to (columns, width) = factor * from^T, with zeros where the panel is wider than there are rows.
template <class T>
void transpose(const T* from, int64_t from_row, int64_t rows, int64_t columns, T factor, T* to,
               int64_t width) {
  for (int64_t d = 0; d < columns; d += kLanes<T>)
    for (int64_t i = 0; i < width; i += kLanes<T>)
      transpose_block(from + i * from_row + d, from_row, rows - i, columns - d, factor, to + d * width + i,
                      width);
}

// Down each of C packs of columns: score <- exp(score - highest). Leaves 1 / sum and, unless lse is null,
// highest + log(sum) of the first `rows` columns.
template <int C, class T>
void softmax(int64_t n, T* score_t, int64_t rows, T* inverse, T* lse) {
  constexpr int64_t row = PanelRow<T>();
  Pack<T> highest[C], sum[C] = {};
  unroll<C>([&](int c) TESSERA_INLINE_LAMBDA { highest[c] = load(score_t + c * kLanes<T>); });
  for (int64_t j = 1; j < n; ++j)
    unroll<C>([&](int c) TESSERA_INLINE_LAMBDA {
      const Pack<T> score = load(score_t + j * row + c * kLanes<T>);
      highest[c] = score > highest[c] ? score : highest[c];
    });
  for (int64_t j = 0; j < n; ++j)
    unroll<C>([&](int c) TESSERA_INLINE_LAMBDA {
      T* at = score_t + j * row + c * kLanes<T>;
      const Pack<T> weight = vexp(load(at) - highest[c]);
      sum[c] += weight;
      store(at, weight);
    });
  unroll<C>([&](int c) TESSERA_INLINE_LAMBDA { store(inverse + c * kLanes<T>, T(1) / sum[c]); });
  if (lse)
    for (int64_t i = 0; i < rows; ++i)
      lse[i] = highest[i / kLanes<T>][i % kLanes<T>] + std::log(sum[i / kLanes<T>][i % kLanes<T>]);
}

}  // namespace

template <class T>
void cpu::attention_forward(const AttentionShape& shape, const T* qkv, Wide<T> scale, T* out, Wide<T>* lse) {
  const Layout<T> layout(shape);
  const int64_t units = layout.panels.count;
  parallel_for(shape.B * shape.H * units, 1, [&](int64_t begin, int64_t end) {
    const int64_t value_size = shape.N * layout.padded, query_size = layout.padded * layout.max_width;
    const int64_t score_size = shape.N * PanelRow<T>();
    Scratch<T> scratch(value_size + query_size + score_size + layout.max_width);
    T *value = scratch.take(value_size), *query_t = scratch.take(query_size),
      *score_t = scratch.take(score_size);
    T* inverse = scratch.take(layout.max_width);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t head = unit / units, panel = unit % units, b = head / shape.H, h = head % shape.H;
      const T* query = qkv + layout.qkv_at(b, h);
      const T* key = query + layout.out_row;
      if (unit == begin || panel == 0)
        copy_rows(key + layout.out_row, layout.row, shape.N, shape.D, T(1), value, layout.padded);
      const int64_t first = layout.panels.begin(panel) * kLanes<T>;
      const int64_t width = layout.panels.size(panel) * kLanes<T>, rows = std::min(width, shape.M() - first);
      transpose(query + first * layout.row, layout.row, rows, shape.D, scale, query_t, width);
      multiply(shape.N, width, shape.D, Rows<T>{key, layout.row, {}}, query_t, width, score_t, PanelRow<T>());
      const PackGroups groups{layout.panels.size(panel)};
      for (int64_t group = 0; group < groups.count; ++group)
        with_packs(groups.size(group), [&](auto packs) {
          const int64_t at = groups.begin(group) * kLanes<T>;
          softmax<packs()>(shape.N, score_t + at, std::min(rows - at, packs() * int64_t{kLanes<T>}),
                           inverse + at, lse ? lse + head * shape.M() + first + at : nullptr);
        });
      T* to = out + layout.out_at(b, h) + first * layout.out_row;
      multiply(rows, shape.D, shape.N, PanelTransposed<T>{score_t, {}, {}}, value, layout.padded, to,
               layout.out_row, inverse);
    }
  });
}

namespace {

// What backward keeps of one head beside qkv: rows padded to whole packs, and one panel.
template <class T>
struct HeadScratch {
  explicit HeadScratch(const Layout<T>& l)
      : scratch(3 * l.shape.N * l.padded + l.padded_tokens + kPanel<T> + 3 * l.padded * kPanel<T> +
                l.shape.N * PanelRow<T>()) {
    for (T** rows : {&query, &key, &grad_out}) *rows = scratch.take(l.shape.N * l.padded);
    for (T** panel : {&query_t, &grad_out_t, &out_t}) *panel = scratch.take(l.padded * kPanel<T>);
    weight_t = scratch.take(l.shape.N * PanelRow<T>());
    grad_score_t = weight_t + kPanel<T>;
    delta = scratch.take(kPanel<T>);
    lse = scratch.take(l.padded_tokens);
    std::fill(lse + l.shape.M(), lse + l.padded_tokens,
              std::numeric_limits<T>::infinity());  // no token, no weight
  }

  Scratch<T> scratch;
  T *query, *key, *grad_out;        // (N, padded D), query and key times scale
  T *query_t, *grad_out_t, *out_t;  // (padded D, queries of the panel)
  T *weight_t, *grad_score_t;       // (N, queries of the panel): P^T and dS^T without `scale`
  T *delta, *lse;                   // (queries of the panel) and (M)
};

// (n, width): weight_t from scores to P^T, grad_score_t from dP^T to dS^T without its factor `scale`.
template <class T>
void softmax_backward(int64_t n, int64_t width, const T* lse, const T* delta, T* weight_t, T* grad_score_t) {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < width; i += kLanes<T>) {
      T *weight_at = weight_t + j * PanelRow<T>() + i, *grad_at = grad_score_t + j * PanelRow<T>() + i;
      const Pack<T> weight = vexp(load(weight_at) - load(lse + i));
      store(weight_at, weight);
      store(grad_at, weight * (load(grad_at) - load(delta + i)));
    }
}

}  // namespace

template <class T>
void cpu::attention_backward(const AttentionShape& shape, const T* qkv, Wide<T> scale, const T* out,
                             const Wide<T>* lse, const T* dout, T* dqkv, Wide<T> beta) {
  const Layout<T> layout(shape);
  const int64_t N = shape.N, M = shape.M(), D = shape.D, row = layout.row, out_row = layout.out_row,
                padded = layout.padded;
  parallel_for(shape.B * shape.H, 1, [&](int64_t begin, int64_t end) {
    const HeadScratch<T> head(layout);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t b = unit / shape.H, h = unit % shape.H;
      const T* query = qkv + layout.qkv_at(b, h);
      const T *key = query + out_row, *value = key + out_row;
      const T *o = out + layout.out_at(b, h), *grad_out = dout + layout.out_at(b, h);
      T *dq = dqkv + layout.qkv_at(b, h), *dk = dq + out_row, *dv = dk + out_row;

      copy_rows(query, row, M, D, scale, head.query, padded);
      copy_rows(key, row, N, D, scale, head.key, padded);
      copy_rows(grad_out, out_row, M, D, T(1), head.grad_out, padded);
      std::copy_n(lse + unit * M, M, head.lse);
      for (int64_t i = M; beta == 0 && i < N; ++i) std::fill_n(dq + i * row, D, T(0));  // nobody asked

      for (int64_t panel = 0; panel < layout.panels.count; ++panel) {
        const int64_t first = layout.panels.begin(panel) * kLanes<T>;
        const int64_t width = layout.panels.size(panel) * kLanes<T>, rows = std::min(width, M - first);
        transpose(query + first * row, row, rows, D, T(1), head.query_t, width);
        transpose(grad_out + first * out_row, out_row, rows, D, T(1), head.grad_out_t, width);
        transpose(o + first * out_row, out_row, rows, D, T(1), head.out_t, width);
        for (int64_t i = 0; i < width; i += kLanes<T>) {
          Pack<T> delta{};
          for (int64_t d = 0; d < D; ++d)
            delta += load(head.out_t + d * width + i) * load(head.grad_out_t + d * width + i);
          store(head.delta + i, delta);
        }
        multiply(N, width, D, Rows<T>{head.key, padded, {}}, head.query_t, width, head.weight_t,
                 PanelRow<T>());
        multiply(N, width, D, Rows<T>{value, row, {}}, head.grad_out_t, width, head.grad_score_t,
                 PanelRow<T>());
        softmax_backward(N, width, head.lse + first, head.delta, head.weight_t, head.grad_score_t);

        const bool add = beta != 0 || panel != 0;
        const Panel<T> weight{head.weight_t, {}, {}}, grad_score{head.grad_score_t, {}, {}};
        multiply(N, D, rows, weight, head.grad_out + first * padded, padded, dv, row, nullptr, add);
        multiply(N, D, rows, grad_score, head.query + first * padded, padded, dk, row, nullptr, add);
        multiply(rows, D, N, PanelTransposed<T>{head.grad_score_t, {}, {}}, head.key, padded,
                 dq + first * row, row, nullptr, beta != 0);
      }
    }
  });
}

template void cpu::attention_forward(const AttentionShape&, const float*, float, float*, float*);
template void cpu::attention_forward(const AttentionShape&, const double*, double, double*, double*);
template void cpu::attention_backward(const AttentionShape&, const float*, float, const float*, const float*,
                                      const float*, float*, float);
template void cpu::attention_backward(const AttentionShape&, const double*, double, const double*,
                                      const double*, const double*, double*, double);

}  // namespace tessera
