// Point clouds in HDF5 as ModelNet40 is handed out (modelnet40_ply_hdf5_2048): the datasets `data` (n,P,3),
// of floats, and `label` (n,1) or (n), of whole numbers. Read through libhdf5 where the program is built with
// it (TESSERA_HDF5); that library has a history of flaws, so only files of a known origin should come here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "engine/base/shape.h"

namespace tessera {

struct CloudFile {
  Shape shape;                  // (n,P,3)
  std::vector<float> points;    // row-major
  std::vector<int64_t> labels;  // (n)
};

// Other types, shapes and sizes than these, and more values than the file can hold, are an Error(Exit::data)
// that names file and dataset; so is any file where the program was built without libhdf5.
CloudFile read_cloud_hdf5(const std::filesystem::path& file);

}  // namespace tessera
