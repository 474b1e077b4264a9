# The CUDA back-end's place in the build. It is not written yet: every build takes the stub none.cc, and AUTO only
# says what it has found.
set(cuda OFF)
if(TESSERA_CUDA STREQUAL "ON")
  message(FATAL_ERROR "TESSERA_CUDA=ON: the CUDA back-end is not part of this version; use AUTO or OFF")
elseif(TESSERA_CUDA STREQUAL "AUTO")
  find_program(TESSERA_NVCC nvcc)
  if(TESSERA_NVCC AND EXISTS /proc/driver/nvidia/version)
    message(STATUS "nvcc and a driver are here, but this version has no CUDA back-end yet: building for the CPU")
  endif()
endif()
target_sources(tessera_core PRIVATE cuda/none.cc)
