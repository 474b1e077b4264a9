// ModelNet40's HDF5 files, written here by libhdf5.
#include <doctest/doctest.h>
#include <hdf5.h>

#include "data/dataset.h"
#include "data/hdf5.h"
#include "tests/data_files.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

template <class T>
void write(hid_t file, const char* name, const std::vector<hsize_t>& shape, hid_t type,
           const std::vector<T>& values) {
  const hid_t space = H5Screate_simple(int(shape.size()), shape.data(), nullptr);
  const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  REQUIRE(set >= 0);
  if (!values.empty()) REQUIRE(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
  H5Dclose(set);
  H5Sclose(space);
}

// What `fill` writes into a new file.
template <class F>
std::filesystem::path hdf5(const TempFolder& folder, const std::string& name, F fill) {
  const std::filesystem::path path = folder.path() / name;
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  REQUIRE(file >= 0);
  fill(file);
  H5Fclose(file);
  return path;
}

std::filesystem::path clouds(const TempFolder& folder, const std::string& name, hsize_t n, uint8_t label) {
  return hdf5(folder, name, [=](hid_t file) {
    std::vector<float> points(n * 2 * 3);
    for (size_t i = 0; i < points.size(); ++i) points[i] = float(i) / 8 + label;
    write(file, "data", {n, 2, 3}, H5T_NATIVE_FLOAT, points);
    write(file, "label", {n, 1}, H5T_NATIVE_UINT8, std::vector<uint8_t>(n, label));
  });
}

}  // namespace

TEST_CASE("modelnet40: files by name, in their order") {
  const TempFolder folder;
  clouds(folder, "ply_data_train1.h5", 2, 39);
  clouds(folder, "ply_data_train0.h5", 1, 7);
  clouds(folder, "ply_data_test0.h5", 1, 1);
  const Dataset train = load_dataset(folder.path(), Split::train),
                test = load_dataset(folder.path(), Split::test);
  CHECK(train.name == "modelnet40");
  CHECK(train.labels == std::vector<int32_t>{7, 39, 39});
  CHECK(train.classes() == 40);
  CHECK(test.labels == std::vector<int32_t>{1});
  const auto preparation = train.samples->preparation({});
  std::vector<float> cloud(6);
  preparation->prepare(2, {}, cloud);
  CHECK(cloud == std::vector<float>{39.75f, 39.875f, 40, 40.125f, 40.25f, 40.375f});
}

TEST_CASE("hdf5: files that are not what they should be") {
  const TempFolder folder;
  const auto bad = [&](const std::string& word, auto fill) {
    const auto path = hdf5(folder, "x.h5", fill);
    check_refused("x.h5", word, [&] { read_cloud_hdf5(path); });
  };
  const std::vector<float> points(12);
  const std::vector<int64_t> labels(2);
  bad("'data' is missing", [](hid_t) {});
  bad("'label' is missing", [&](hid_t f) { write(f, "data", {2, 2, 3}, H5T_NATIVE_FLOAT, points); });
  bad("does not hold floats", [&](hid_t f) { write(f, "data", {2}, H5T_NATIVE_INT64, labels); });
  bad("expected (n,points,3)", [&](hid_t f) { write(f, "data", {2, 3, 2}, H5T_NATIVE_FLOAT, points); });
  bad("expected (n,points,3)", [&](hid_t f) { write(f, "data", {4, 3}, H5T_NATIVE_FLOAT, points); });
  bad("has 0 axes", [&](hid_t f) {
    const hid_t space = H5Screate(H5S_SCALAR);
    H5Dclose(H5Dcreate2(f, "data", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
  });
  bad("an axis of 0", [&](hid_t f) { write(f, "data", {0, 2, 3}, H5T_NATIVE_FLOAT, std::vector<float>{}); });
  // Never written: a few bytes in the file, and 12 TiB to read.
  bad("cannot be in a file", [&](hid_t f) {
    write(f, "data", {1 << 20, 1 << 20, 3}, H5T_NATIVE_FLOAT, std::vector<float>{});
  });
  const auto with_label = [&](const std::vector<hsize_t>& shape, hid_t type, const auto& values) {
    return [&, shape, type](hid_t f) {
      write(f, "data", {2, 2, 3}, H5T_NATIVE_FLOAT, points);
      write(f, "label", shape, type, values);
    };
  };
  bad("expected (n) or (n,1)", with_label({1}, H5T_NATIVE_INT64, labels));
  bad("expected (n) or (n,1)", with_label({1, 2}, H5T_NATIVE_INT64, labels));
  bad("does not hold whole numbers", with_label({2}, H5T_NATIVE_FLOAT, points));

  const auto whole = clouds(folder, "whole.h5", 50, 3);
  CHECK(read_cloud_hdf5(whole).labels == std::vector<int64_t>(50, 3));
  const ByteVector bytes = [&] {
    std::ifstream in(whole, std::ios::binary);
    return ByteVector(std::istreambuf_iterator<char>(in), {});
  }();
  for (const size_t size : {size_t{0}, size_t{7}, bytes.size() / 2, bytes.size() - 1}) {
    folder.write("x.h5", first_bytes(bytes, size));
    check_refused("x.h5", "truncated", [&] { read_cloud_hdf5(folder.path() / "x.h5"); });
  }
  check_refused("none.h5", "cannot be read", [&] { read_cloud_hdf5(folder.path() / "none.h5"); });
  clouds(folder, "ply_data_train0.h5", 1, 40);
  check_refused("ply_data_train0.h5", "label 40", [&] { load_dataset(folder.path(), Split::train); });
}
