// All differentiable ops on one page. Letters: B batch, N tokens, C channels, H heads, D head size, E
// experts, M rows, O outputs, K classes, P patch; * stands for any leading axes. f32 and f64 throughout.
//
// Where weights have bf16 copies (ParameterStore::keep_copies) linear layers multiply in bf16, whatever x is,
// and give x's type. bf16 activations go from a layer norm that is asked for them through linear layers,
// attention, dropout and permutations of rows to where they are added to a residual connection: that, every
// statistic and every gradient of a parameter are f32. Other ops take no bf16 but widen() of it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/rng.h"
#include "engine/tensor/tape.h"
#include "engine/tensor/tensor.h"

namespace tessera {

// ---- linear layers (linear.cc)
// y(*,O) = x(*,C) weight(O,C)^T + bias(O)
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
// gelu(linear(x, weight, bias))
Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
// residual(B,*,O) + scale(B) * linear(x(B,*,C), weight, bias); an absent scale is 1. The scale is a constant.
Tensor linear_residual(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual,
                       const Tensor& scale = {});
// Rows offsets[e] to offsets[e+1] of x(M,C) through expert e: weight(E,O,C), bias(E,O); offsets has E+1
// entries from 0 to M. An expert without rows gets the gradient 0.
Tensor grouped_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      std::span<const int64_t> offsets);
Tensor grouped_linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           std::span<const int64_t> offsets);

// ---- types (narrow.cc): x as it is where it has the type already
Tensor narrow(const Tensor& x);                 // f32 to bf16
Tensor widen(const Tensor& x);                  // bf16 to f32
void narrow_to(Tensor& copy, const Tensor& x);  // without a gradient, into what is there

// ---- products (matmul.cc)
// c(*,M,O) = op(a) op(b); with equal leading axes. transpose_b: b is (*,O,C).
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false);

// ---- normalisation (layer_norm.cc, batch_norm.cc, batch_norm_rows.cc)
// Over the last axis: (x - mean) / sqrt(var + eps) * gamma + beta, population variance.
Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps = 1e-6);
// The same as an operand of a product: in bf16 where gamma has a bf16 copy.
Tensor layer_norm_operand(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps = 1e-6);
// x(B,C,H,W) over (B,H,W); training: batch statistics, and running_mean, running_var (C) are updated in place
// by `momentum` (the variance unbiased); otherwise the running ones are used.
// Training is for one thread at a time: replicas would each see statistics of their own.
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean,
                  Tensor& running_var, bool training, double momentum = 0.1, double eps = 1e-5);
// batch_norm takes x(M,C) too, over its rows, which is this.
Tensor batch_norm_rows(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean,
                       Tensor& running_var, bool training, double momentum = 0.1, double eps = 1e-5);

// ---- activations (gelu.cc, relu.cc, softmax.cc, normal_cdf.cc)
Tensor gelu(const Tensor& x);        // x Phi(x), exact
Tensor relu(const Tensor& x);        // the gradient at 0 is 0
Tensor softmax(const Tensor& x);     // over the last axis
Tensor normal_cdf(const Tensor& x);  // Phi(x)

// ---- losses (softmax_cross_entropy.cc)
// Mean over B of -sum_k q_k log softmax(logits)_k. labels: i32 (B), each in [0,K), an error otherwise, with
// q = (1 - smoothing) onehot + smoothing / K; or soft targets of the logits' type (B,K), smoothed alike.
Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& targets, double smoothing = 0);

// (std / mean)^2 over the last axis, which is removed; population variance. (squared_variation.cc)
Tensor squared_variation(const Tensor& x);

// ---- attention (attention.cc)
// softmax(q k^T / sqrt(D)) v for packed qkv(B,N,3,H,D); out (B,N,H*D), or of the `first` tokens alone where
// that is not 0. No N x N tensor is kept.
Tensor attention(const Tensor& qkv, int64_t first = 0);
// The parts of which other kinds of attention are made, with matmul and softmax between them
// (split_heads.cc, mix_heads.cc, relative_position.cc):
// part s of packed(B,N,S,H,D), heads first: (B,H,N,D); and x(B,H,N,D) back to (B,N,H*D).
Tensor split_heads(const Tensor& packed, int64_t s);
Tensor merge_heads(const Tensor& x);
// y_g = sum_h weight(g,h) x_h + bias(g) over the heads of x(B,H,N,M).
Tensor mix_heads(const Tensor& x, const Tensor& weight, const Tensor& bias);
// (H,W*W,W*W): table((2W-1)^2,H) at the offset of each two tokens of a W x W window.
Tensor relative_position_bias(const Tensor& table, int64_t W);

// ---- arithmetic (arithmetic.cc): sizes of 1 and missing leading axes broadcast
Tensor add(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor scale(const Tensor& x, double factor);
// residual(B,*,C) + scale(B) * gamma(C) * x(B,*,C) (layer_scale.cc); an absent scale is 1. The scale is a
// constant.
Tensor layer_scale(const Tensor& x, const Tensor& gamma, const Tensor& residual, const Tensor& scale = {});

// ---- shape (concat.cc, slice.cc, mean.cc, max.cc, patches.cc, permute_rows.cc, embed_tokens.cc)
Tensor concat(const std::vector<Tensor>& parts, int axis);
Tensor slice(const Tensor& x, int axis, int64_t begin, int64_t end);
Tensor mean(const Tensor& x, int axis);  // the axis is removed
Tensor mean(const Tensor& x);            // of all elements
Tensor max(const Tensor& x, int axis);   // the axis is removed
// images(B,C,H,W) to (B, (H/P)(W/P), C*P*P), row-major in the grid, (c, row, column) inside a patch.
Tensor patches(const Tensor& images, int64_t P);
// y_i = x_order(i) for x(M,C), and its inverse y_order(i) = x_i; order: i32 (M), a permutation.
Tensor permute_rows(const Tensor& x, const Tensor& order);
Tensor unpermute_rows(const Tensor& x, const Tensor& order);
// residual(B,*,C) + scale(B) * unpermute_rows(x(M,C), order); an absent scale is 1. The scale is a constant.
Tensor combine_rows(const Tensor& x, const Tensor& order, const Tensor& residual, const Tensor& scale = {});
// Rows that go to k experts each: slots i32 (M,k) is every choice's row in the experts' order, -1 where it
// was dropped; each of the R rows is the slot of one choice. (dispatch_rows.cc, pick.cc) y(R,C): y_slots(i,j)
// = x_i for x(M,C).
Tensor dispatch_rows(const Tensor& x, const Tensor& slots, int64_t R);
// residual(B,*,C) + scale(B) * sum_j gates_ij x_slots(i,j) for x(R,C), gates(M,k); an absent scale is 1. The
// scale is a constant.
Tensor combine_gated(const Tensor& x, const Tensor& gates, const Tensor& slots, const Tensor& residual,
                     const Tensor& scale = {});
// y(M,k): y_ij = x_i,index(i,j) for x(M,E), index i32 (M,k).
Tensor pick(const Tensor& x, const Tensor& index);
// concat(prefix for each image, x(B,N,C)) + position: prefix(1,P,C), position(1,P+N,C); out (B,P+N,C).
Tensor embed_tokens(const Tensor& x, const Tensor& prefix, const Tensor& position);

// ---- convolution (conv2d.cc, max_pool.cc)
// x(B,C,H,W), weight(O,C,h,w), bias(O) or none: out (B,O,H',W'), zero padding.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding);
Tensor max_pool(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding);

// ---- grids of tokens (depthwise_conv.cc, unfold.cc): x(B,H,W,C), in the order of tokens (B,H*W,C)
// m kernels for each channel: weight(mC,1,h,w), bias(mC) or none: out (B,H',W',mC), zero padding.
Tensor depthwise_conv(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride,
                      int64_t padding);
// Each window as a token: out (B,H'W',C*kernel*kernel), (c, row, column) inside a window, zero padding.
Tensor unfold(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding);

// ---- point clouds (farthest_points.cc, nearest_points.cc): no gradients
// G points of each cloud points(B,P,3), far from each other: out (B,G,3), the cloud's first point first.
Tensor farthest_points(const Tensor& points, int64_t G);
// Of each of centres(B,G,3) the k nearest points, minus the centre: out (B,G,k,3), nearest first.
Tensor nearest_points(const Tensor& points, const Tensor& centres, int64_t k);

// ---- noise (dropout.cc, normal_noise.cc): drawn by the sample's place in the whole batch, so that cutting
// it changes nothing
//
// Zeroes elements with probability `rate`, the others divided by 1 - rate. `first_sample`: place of x's
// first sample (axis 0) in the batch.
Tensor dropout(const Tensor& x, double rate, const Draw& draw, int64_t first_sample);
// std * z with z standard normal, a constant whose axis 0 is samples.
Tensor normal_noise(const Shape& shape, double std, const Draw& draw, int64_t first_sample, DType dtype);
// Per sample 0 (with probability `rate`) or 1 / (1 - rate), a constant (B) for linear_residual.
Tensor drop_path_scale(int64_t B, double rate, const Draw& draw, int64_t first_sample, DType dtype);
// x(B,*) times its drop_path_scale.
Tensor drop_path(const Tensor& x, double rate, const Draw& draw, int64_t first_sample);

}  // namespace tessera
