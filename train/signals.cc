#include "train/signals.h"

#include <csignal>

namespace tessera {
namespace {

volatile std::sig_atomic_t received = 0;
struct sigaction former_int, former_term;

void note(int signal) { received = signal; }

void install(int signal, struct sigaction* former) {
  struct sigaction action {};
  action.sa_handler = note;
  action.sa_flags = SA_RESETHAND;  // the second one has the default effect
  sigaction(signal, &action, former);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  received = 0;
  install(SIGINT, &former_int);
  install(SIGTERM, &former_term);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &former_int, nullptr);
  sigaction(SIGTERM, &former_term, nullptr);
}

int InterruptGuard::signal() const { return received; }

}  // namespace tessera
