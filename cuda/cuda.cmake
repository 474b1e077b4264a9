# The CUDA back-end: sets `cuda`, and what stands in cuda/ joins the library. Without it none.cc stands in.
# Ops and optimizers are compiled as CUDA too: their programs (engine/kernels) become kernels of the same functors.
set(cuda OFF)
if(TESSERA_CUDA STREQUAL "ON")
  set(cuda ON)
elseif(TESSERA_CUDA STREQUAL "AUTO")
  find_program(TESSERA_NVCC nvcc)
  if(TESSERA_NVCC AND EXISTS /proc/driver/nvidia/version)
    set(cuda ON)
  endif()
endif()

target_sources(tessera_core PRIVATE cuda/devices.cc)
if(NOT cuda)
  target_sources(tessera_core PRIVATE cuda/none.cc)
  return()
endif()

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # The cards with bf16 that servers have, and PTX for those to come.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
endif()
enable_language(CUDA)
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know yet that nvcc has C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
endif()
find_package(CUDAToolkit REQUIRED)
file(GLOB cuda_sources CONFIGURE_DEPENDS cuda/*.cu)
target_sources(tessera_core PRIVATE ${cuda_sources})
set_source_files_properties(${device_sources} PROPERTIES LANGUAGE CUDA)
set_target_properties(tessera_core PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
# The host's side of these files gets the options of all others. constexpr functions of the standard library, such
# as those of std::array, run on a card too.
list(JOIN host_options "," joined)
target_compile_options(tessera_core PRIVATE
  "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-Xcompiler=-fopenmp,${joined}>")
target_link_libraries(tessera_core PUBLIC CUDA::cudart_static CUDA::cublas CUDA::cublasLt)
