#!/usr/bin/env bash
# Each layer includes only itself and the layers before it, and only the back-ends know their libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
layers=(engine/base engine/io engine/tensor engine/kernels engine/cpu engine/ops optim nn models data train cli)
bad=0
for layer in "${layers[@]}"; do
  [[ -d $layer ]] || { echo "layers: there is no folder $layer" >&2; bad=1; }
done
for i in "${!layers[@]}"; do
  for later in "${layers[@]:i+1}"; do
    if grep -rnE "#include \"$later/" "${layers[i]}" --include='*.h' --include='*.cc' --include='*.cu'; then
      echo "layers: ${layers[i]} includes $later, which comes after it" >&2
      bad=1
    fi
  done
done
if grep -rnE '#include <(Eigen/|dnnl|oneapi/dnnl|cublas)' engine nn models optim data train cli \
    --include='*.h' --include='*.cc' | grep -v '^engine/cpu/'; then
  echo "layers: only engine/cpu may include Eigen or oneDNN" >&2
  bad=1
fi
# CUDA's own headers stay in its folder; programs reach their kernels through one header.
if grep -rnE '#include "cuda/' engine nn models optim data train cli --include='*.h' --include='*.cc' |
    grep -vE '"cuda/(runtime|devices)\.h"|^engine/kernels/on_card\.h:'; then
  echo "layers: of cuda, only runtime.h and devices.h are for others" >&2
  bad=1
fi
# The engine never looks at what stands on it; base stands on nothing.
if grep -rnE '#include "(engine/cpu)/' engine/ops nn models optim data train cli --include='*.h' --include='*.cc'; then
  echo "layers: ops reach the back-end through engine/kernels only" >&2
  bad=1
fi
if grep -rnE '#include "(engine/(cpu|ops)|optim|nn|models|data|train|cli)/' cuda; then
  echo "layers: cuda includes what comes after it" >&2
  bad=1
fi
exit $bad
