#include "engine/base/parallel.h"

namespace tessera::detail {

void FirstError::keep() {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::current_exception();
}

void FirstError::rethrow() {
  if (error_) std::rethrow_exception(error_);
}

}  // namespace tessera::detail
