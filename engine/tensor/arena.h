// Step arena: the memory of one replica's steps. The first step of a kind is served from a pool and recorded
// (bytes, birth, death of every block); the blocks then get fixed offsets in one slab, and later steps of
// that kind replay the plan. A step that allocates or frees in another order than its plan goes on from the
// pool, where nothing can overlap, and is planned anew. All of it is memory of one device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "engine/base/device.h"

namespace tessera {

class Arena {
 public:
  explicit Arena(const Device& device = Device::current()) : device_(device) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();  // every tensor from here must be gone

  // The arena that new tensors of this thread come from, if they are of its device; null: the heap.
  static Arena*& current();
  const Device& device() const { return device_; }

  // Steps with the same key make the same allocations (micro-batch size, training or not).
  void begin_step(uint64_t key);
  void end_step();

  void* allocate(size_t bytes);
  void release(void* block);

  size_t slab_bytes() const;
  // Where steps that are planned have their memory; it may move when a larger plan comes.
  const void* slab() const { return slab_; }
  // Blocks that came from the pool, in all steps so far.
  int64_t unplanned_blocks() const { return unplanned_blocks_; }

  // RAII: makes `arena` current and runs one step in it.
  class Step {
   public:
    Step(Arena& arena, uint64_t key) : arena_(arena), former_(current()) {
      arena_.begin_step(key);
      current() = &arena_;
    }
    ~Step() {
      current() = former_;
      arena_.end_step();
    }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    Arena& arena_;
    Arena* former_;
  };

 private:
  struct Block {
    size_t bytes = 0, offset = 0;
    int birth = 0, death = 0;  // events
  };
  struct Plan {
    std::vector<int> events;  // -1: allocation; i: release of block i
    std::vector<Block> blocks;
    size_t slab_bytes = 0;
  };
  enum class Mode { idle, record, replay };

  static void assign_offsets(Plan& plan);
  bool in_slab(const void* block) const;
  void* pool_allocate(size_t bytes);
  void free_pool();

  Device device_;
  std::map<uint64_t, Plan> plans_;
  Plan* plan_ = nullptr;  // the plan recorded or replayed
  Plan recording_;
  Mode mode_ = Mode::idle;
  bool deviated_ = false;
  uint64_t key_ = 0;
  size_t event_ = 0, next_block_ = 0;
  std::map<void*, int> live_;  // block -> number in this step

  std::byte* slab_ = nullptr;
  size_t slab_size_ = 0;
  int64_t unplanned_blocks_ = 0;
  std::map<size_t, std::vector<void*>> pool_;  // free blocks by size
  std::map<void*, size_t> pool_sizes_;         // all blocks of the pool
};

}  // namespace tessera
