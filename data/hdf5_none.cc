// Stands in for data/hdf5.cc in a build without libhdf5.
#include "data/hdf5.h"
#include "engine/base/check.h"

namespace tessera {

CloudFile read_cloud_hdf5(const std::filesystem::path& file) {
  fail(Exit::data, file.string(),
       ": this program was built without HDF5; install libhdf5-dev and build with -DTESSERA_HDF5=ON");
}

}  // namespace tessera
