# The CUDA back-end's place in the build. AUTO builds it where both nvcc and a driver are found.
set(cuda OFF)
if(TESSERA_CUDA STREQUAL "ON")
  message(FATAL_ERROR "TESSERA_CUDA=ON: the CUDA back-end is not part of this version; use AUTO or OFF")
endif()
