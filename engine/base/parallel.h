// Threads: one pool (OpenMP's), its size set once. Inside a replica everything runs on the replica's own
// thread.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

namespace tessera {

inline int thread_count() { return omp_get_max_threads(); }
inline void set_thread_count(int n) { omp_set_num_threads(n); }

namespace detail {

// An exception may not leave an OpenMP region: the first one is carried out and thrown again there.
class FirstError {
 public:
  template <class F>
  void guard(F&& f) {
    try {
      f();
    } catch (...) {
      keep();
    }
  }
  void rethrow();

 private:
  void keep();

  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace detail

// Calls f(begin, end) on contiguous pieces of [0, n), of about `grain` or more each. The cut depends
// on n, grain and the thread count alone. Nested calls run serially.
template <class F>
void parallel_for(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  const int64_t pieces = std::min<int64_t>(thread_count(), (n + grain - 1) / std::max<int64_t>(grain, 1));
  if (pieces <= 1 || omp_in_parallel()) return f(int64_t{0}, n);
  detail::FirstError error;
#pragma omp parallel num_threads(int(pieces))
  error.guard([&] {
    const int64_t t = omp_get_thread_num(), of = omp_get_num_threads();
    const int64_t begin = n * t / of, end = n * (t + 1) / of;
    if (begin < end) f(begin, end);
  });
  error.rethrow();
}

// Calls f(worker) once on each of `workers` threads; inside, ops run serially on that worker's thread. A
// single worker is the caller, whose ops may use all threads (a region of one thread around them would cost
// the pool).
template <class F>
void on_workers(int workers, F&& f) {
  if (workers <= 1) return f(0);
  detail::FirstError error;
#pragma omp parallel num_threads(workers)
  error.guard([&] {  // there may be fewer threads than workers
    for (int w = omp_get_thread_num(); w < workers; w += omp_get_num_threads()) f(w);
  });
  error.rethrow();
}

}  // namespace tessera
