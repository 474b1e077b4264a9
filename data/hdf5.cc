#include "data/hdf5.h"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "data/bytes.h"
#include "engine/base/check.h"

namespace tessera {
namespace {

// What libhdf5 opened, closed again.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

struct Source {
  const std::string& file;
  hid_t handle;
  uint64_t bytes;  // of the file
};

// All of dataset `name`, whose values are of class `wanted`, as T. Takes its shape.
template <class T>
std::vector<T> read(const Source& source, const char* name, H5T_class_t wanted, hid_t type, Shape& shape) {
  const auto need = [&](bool good, const auto&... parts) {
    TESSERA_CHECK_AS(Exit::data, good, source.file, ": dataset '", name, "' ", parts...);
  };
  need(H5Lexists(source.handle, name, H5P_DEFAULT) > 0, "is missing");
  const Handle set(H5Dopen2(source.handle, name, H5P_DEFAULT), H5Dclose);
  need(set >= 0, "cannot be opened; is the file whole?");
  const Handle stored(H5Dget_type(set), H5Tclose), space(H5Dget_space(set), H5Sclose);
  need(stored >= 0 && H5Tget_class(stored) == wanted, "does not hold ",
       wanted == H5T_FLOAT ? "floats" : "whole numbers");
  const int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
  need(0 < rank && rank <= Shape::kMaxRank, "has ", rank, " axes");
  std::array<hsize_t, Shape::kMaxRank> sizes{};
  H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
  // Deflate's best case bounds what a file can expand to.
  const uint64_t most = std::min(kMaxFileBytes, source.bytes * 1032) / sizeof(T);
  uint64_t count = 1;
  for (int axis = 0; axis < rank; ++axis) {
    const uint64_t size = sizes[size_t(axis)];
    need(size > 0 && count <= most / size, "has an axis of ", size, "; its values cannot be in a file of ",
         source.bytes, " bytes");
    count *= size;
    shape.push_back(int64_t(size));
  }
  std::vector<T> values(count);
  need(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0,
       "cannot be read; is the file whole?");
  return values;
}

}  // namespace

CloudFile read_cloud_hdf5(const std::filesystem::path& path) {
  static std::mutex one_at_a_time;  // libhdf5 is not built for threads
  const std::lock_guard lock(one_at_a_time);
  const std::string file = path.string();
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  TESSERA_CHECK_AS(Exit::data, !error, file, ": cannot be read (", error.message(), ")");
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // what fails is said here
  const Handle handle(H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  TESSERA_CHECK_AS(Exit::data, handle >= 0, file, ": is not an HDF5 file, or is truncated");
  const Source source{file, handle, bytes};

  CloudFile clouds;
  clouds.points = read<float>(source, "data", H5T_FLOAT, H5T_NATIVE_FLOAT, clouds.shape);
  TESSERA_CHECK_AS(Exit::data, clouds.shape.rank() == 3 && clouds.shape[2] == 3, file, ": dataset 'data' is ",
                   clouds.shape, ", expected (n,points,3)");
  Shape labels;
  clouds.labels = read<int64_t>(source, "label", H5T_INTEGER, H5T_NATIVE_INT64, labels);
  TESSERA_CHECK_AS(Exit::data, labels[0] == clouds.shape[0] && labels.count() == labels[0], file,
                   ": dataset 'label' is ", labels, ", expected (n) or (n,1) with n = ", clouds.shape[0]);
  return clouds;
}

}  // namespace tessera
