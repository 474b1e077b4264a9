#include "train/signals.h"

#include <csignal>
#include <initializer_list>

#include "engine/base/parallel.h"

namespace tessera {
namespace {

constexpr int kEnd = SIGURG;  // ends the receiver; ignored by default, so it harms nobody at any time

sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  return set;
}

// Threads that are made later inherit the caller's mask; those of the pool are here already.
void on_all_threads(int how) {
  const sigset_t set = set_of({SIGINT, SIGTERM, kEnd});
#pragma omp parallel
  pthread_sigmask(how, &set, nullptr);
}

void receive(std::atomic<int>& received) {
  const sigset_t any = set_of({SIGINT, SIGTERM, kEnd}), interrupts = set_of({SIGINT, SIGTERM}),
                 end = set_of({kEnd});
  int signal = 0;
  sigwait(&any, &signal);
  if (signal == kEnd) return;
  received = signal;
  pthread_sigmask(SIG_UNBLOCK, &interrupts, nullptr);
  sigwait(&end, &signal);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  on_all_threads(SIG_BLOCK);
  receiver_ = std::thread([this] { receive(received_); });
}

InterruptGuard::~InterruptGuard() {
  pthread_kill(receiver_.native_handle(), kEnd);
  receiver_.join();
  on_all_threads(SIG_UNBLOCK);
}

}  // namespace tessera
