// SIGINT and SIGTERM as a request that the training loop reads between steps.
#pragma once

namespace tessera {

// While it lives, both signals set a flag instead of ending the process; a second one of either kind ends it
// at once.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  int signal() const;  // the one that came; 0: none
};

}  // namespace tessera
