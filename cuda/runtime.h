// What the engine asks of a card beside kernels: memory, copies, graphs and waiting, on the current device
// and in the order of its one stream. none.cc stands in where the build has no CUDA: there no device is ever
// current.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "engine/base/device.h"

struct CUevent_st;  // CUDA's
struct CUgraphExec_st;

namespace tessera::cuda {

void* allocate(size_t bytes);
void release(void* block);
// Between any two places; the host's side must stay as it is until the stream has come by.
void copy(void* to, const void* from, size_t bytes);
// From one card to another, in the order of both streams.
void copy_across(void* to, const Device& to_card, const void* from, const Device& from_card, size_t bytes);
void zero(void* to, size_t bytes);
void fill(float* to, int64_t n, float value);
void fill(double* to, int64_t n, double value);
// Whether f32 products may round their operands to tf32 (10 bits of mantissa); off until --dtype tf32.
bool& use_tf32();
// Waits for all that was asked for.
void synchronize();

// What was asked of the card once, to be asked again as a whole.
class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph();

  // Records what `work` asks of the card, which does not do it. Where it waits for the card, or asks for
  // memory or what else no graph can hold, nothing is recorded, and the answer is why; else it is empty. What
  // `work` passes by value stays as it is; all memory that it works on must outlive the graph.
  std::string record(const std::function<void()>& work);
  void launch();
  explicit operator bool() const { return executable_; }

 private:
  CUgraphExec_st* executable_ = nullptr;
};

// Brings one block after another to the same place on the card while that works: a stream of its own takes
// them from two buffers that the card can reach.
class Upload {
 public:
  Upload(void* to, size_t bytes);
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  ~Upload();

  // Where the host writes the next block. It stays as it is until the call after the next.
  std::byte* next();
  // Sends the first bytes of it: what is asked of the card from here on finds them in place.
  void send(size_t bytes);

 private:
  void* const to_;
  void* arriving_ = nullptr;  // on the card
  std::array<void*, 2> buffers_{};
  std::array<CUevent_st*, 2> left_{};  // a buffer's block has left it
  CUevent_st* taken_ = nullptr;        // what had arrived is in place
  int64_t blocks_ = 0;
};

// Fetches a small block from the card, again and again; two at most are on their way.
class Download {
 public:
  Download(const void* from, size_t bytes);
  Download(const Download&) = delete;
  Download& operator=(const Download&) = delete;
  ~Download();

  // The block as it will be when all that was asked for is done.
  void fetch();
  // Waits for the oldest that was fetched. Valid until the next call of fetch().
  const void* wait();

 private:
  const void* const from_;
  const size_t bytes_;
  std::array<void*, 2> buffers_{};
  std::array<CUevent_st*, 2> ready_{};
  int64_t fetched_ = 0, waited_ = 0;
};

}  // namespace tessera::cuda
