#include "engine/tensor/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/base/check.h"
#include "engine/tensor/memory.h"

namespace tessera {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

Arena*& Arena::current() {
  thread_local Arena* arena = nullptr;
  return arena;
}

Arena::~Arena() {
  free_pool();
  release_memory(device_, slab_);
}

void Arena::free_pool() {
  for (const auto& [block, size] : pool_sizes_) release_memory(device_, block);
  pool_.clear();
  pool_sizes_.clear();
}

size_t Arena::slab_bytes() const { return slab_size_; }

void Arena::begin_step(uint64_t key) {
  key_ = key;
  event_ = next_block_ = 0;
  deviated_ = false;
  recording_ = {};
  // What outlived its step may sit anywhere in the slab: such a step is not planned.
  if (!live_.empty()) {
    mode_ = Mode::idle;
    return;
  }
  const auto found = plans_.find(key);
  mode_ = found == plans_.end() ? Mode::record : Mode::replay;
  plan_ = found == plans_.end() ? nullptr : &found->second;
  if (plan_ && plan_->slab_bytes > slab_size_) {
    release_memory(device_, std::exchange(slab_, nullptr));
    slab_size_ = 0;  // should there be no memory for the larger one
    const size_t size = round_up(plan_->slab_bytes, kHugePage);
    slab_ = static_cast<std::byte*>(allocate_memory(device_, size, kHugePage));
    slab_size_ = size;
    if (!device_.is_cuda()) madvise(slab_, slab_size_, MADV_HUGEPAGE);
  }
}

void Arena::end_step() {
  if (mode_ == Mode::record && live_.empty()) {
    assign_offsets(recording_);
    plans_[key_] = std::move(recording_);
  } else if (mode_ == Mode::replay && (deviated_ || event_ != plan_->events.size())) {
    plans_.erase(key_);
    plan_ = nullptr;
  }
  if (mode_ != Mode::idle && live_.empty()) free_pool();  // planned from now on: it is not needed
  mode_ = Mode::idle;
}

void* Arena::allocate(size_t bytes) {
  bytes = round_up(std::max<size_t>(bytes, 1), kAlignment);
  if (mode_ == Mode::replay && !deviated_) {
    const bool expected = event_ < plan_->events.size() && plan_->events[event_] == -1 &&
                          plan_->blocks[next_block_].bytes == bytes;
    if (expected) {
      void* block = slab_ + plan_->blocks[next_block_].offset;
      ++event_;
      live_[block] = int(next_block_++);
      return block;
    }
    deviated_ = true;
  }
  void* block = pool_allocate(bytes);
  int number = -1;
  if (mode_ == Mode::record) {
    number = int(recording_.blocks.size());
    recording_.blocks.push_back({bytes, 0, int(recording_.events.size()), -1});
    recording_.events.push_back(-1);
  }
  live_[block] = number;
  return block;
}

void Arena::release(void* block) {
  const auto found = live_.find(block);
  TESSERA_CHECK(found != live_.end(), "arena: a block was released twice or belongs to another arena");
  const int number = found->second;
  live_.erase(found);
  if (mode_ == Mode::record && number >= 0) {
    recording_.blocks[size_t(number)].death = int(recording_.events.size());
    recording_.events.push_back(number);
  } else if (mode_ == Mode::replay && !deviated_) {
    if (event_ < plan_->events.size() && plan_->events[event_] == number)
      ++event_;
    else
      deviated_ = true;
  }
  if (!in_slab(block)) pool_[pool_sizes_.at(block)].push_back(block);
}

// Largest first, each block at the lowest offset that is free during its whole life.
void Arena::assign_offsets(Plan& plan) {
  auto& blocks = plan.blocks;
  std::vector<int> order(blocks.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return blocks[size_t(a)].bytes > blocks[size_t(b)].bytes; });
  std::vector<int> placed;  // by offset
  for (int index : order) {
    Block& block = blocks[size_t(index)];
    size_t offset = 0;
    for (int other_index : placed) {
      const Block& other = blocks[size_t(other_index)];
      if (other.death <= block.birth || other.birth >= block.death) continue;
      if (offset + block.bytes <= other.offset) break;
      offset = std::max(offset, other.offset + other.bytes);
    }
    block.offset = offset;
    plan.slab_bytes = std::max(plan.slab_bytes, offset + block.bytes);
    const auto place = std::upper_bound(placed.begin(), placed.end(), index, [&](int a, int b) {
      return blocks[size_t(a)].offset < blocks[size_t(b)].offset;
    });
    placed.insert(place, index);
  }
}

bool Arena::in_slab(const void* block) const {
  const auto* at = static_cast<const std::byte*>(block);
  return slab_ && at >= slab_ && at < slab_ + slab_size_;
}

void* Arena::pool_allocate(size_t bytes) {
  ++unplanned_blocks_;
  auto& free_blocks = pool_[bytes];
  if (!free_blocks.empty()) {
    void* block = free_blocks.back();
    free_blocks.pop_back();
    return block;
  }
  void* block = allocate_memory(device_, bytes, kAlignment);
  pool_sizes_[block] = bytes;
  return block;
}

}  // namespace tessera
