// Ctrl-C and SIGTERM end a run between two steps.
#pragma once

#include <atomic>
#include <thread>

namespace tessera {

// While one lives, the first SIGINT or SIGTERM is only noted, and the next one has its default effect. A
// thread of its own receives them and all others block them: a handler's frame would overwrite what
// oneDNN 2.6's sgemm keeps below its stack pointer, further down than the 128 bytes that the ABI leaves
// alone.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  int signal() const { return received_; }  // 0: none yet

 private:
  std::atomic<int> received_{0};
  std::thread receiver_;
};

}  // namespace tessera
