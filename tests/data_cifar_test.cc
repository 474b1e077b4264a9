#include <doctest/doctest.h>

#include "data/cifar.h"
#include "data/dataset.h"
#include "tests/data_files.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

// `labels` then 3072 pixels, all `pixel`.
ByteVector cifar_record(ByteVector labels, uint8_t pixel) {
  return joined(std::move(labels), ByteVector(3072, pixel));
}

}  // namespace

TEST_CASE("cifar10: five training files in order, one for test") {
  const TempFolder folder;
  for (uint8_t i = 1; i <= 5; ++i) {
    folder.write(text("data_batch_", int{i}, ".bin"),
                 joined(cifar_record({i}, i), cifar_record({9}, uint8_t(10 * i))));
  }
  ByteVector ramp = {3};
  for (int i = 0; i < 3072; ++i) ramp.push_back(uint8_t(i / 16));
  folder.write("test_batch.bin", ramp);

  const Dataset train = load_dataset(folder.path(), Split::train),
                test = load_dataset(folder.path(), Split::test);
  CHECK(train.name == "cifar10");
  CHECK(train.labels == std::vector<int32_t>{1, 9, 2, 9, 3, 9, 4, 9, 5, 9});
  CHECK(image(train, 9)[3071] == 50);
  CHECK(train.coarse_labels.empty());
  CHECK(train.class_names[9] == "truck");
  CHECK(test.count() == 1);
  CHECK(test.samples->shape() == Shape{3, 32, 32});
  CHECK(pixels(test) == ByteVector(ramp.begin() + 1, ramp.end()));
}

TEST_CASE("cifar100: the coarse label comes first; names where there are files") {
  const TempFolder folder;
  folder.write("train.bin", joined(cifar_record({19, 99}, 1), cifar_record({0, 42}, 2)));
  Dataset set = load_dataset(folder.path(), Split::train);
  CHECK(set.name == "cifar100");
  CHECK(set.labels == std::vector<int32_t>{99, 42});
  CHECK(set.coarse_labels == std::vector<int32_t>{19, 0});
  CHECK(image(set, 1)[0] == 2);
  CHECK(set.class_names[42] == "42");
  CHECK(set.coarse_names.size() == 20);

  std::string names;
  for (int i = 0; i < 100; ++i) names += text("class_", i, i % 2 ? "\r\n" : "\n");
  folder.write("fine_label_names.txt", ByteVector(names.begin(), names.end()));
  CHECK(load_dataset(folder.path(), Split::train).class_names[43] == "class_43");
  folder.write("fine_label_names.txt", {'a', '\n', 'b', '\n'});
  check_refused("fine_label_names.txt", "2 class names", [&] { load_dataset(folder.path(), Split::train); });
}

TEST_CASE("cifar: hostile files") {
  const ByteVector good10 = cifar_record({9}, 7), good100 = cifar_record({19, 99}, 7);
  const auto bad10 = [](const std::string& word, const ByteVector& bytes) {
    const TempFolder folder;
    folder.write("test_batch.bin", bytes);
    check_refused("test_batch.bin", word, [&] { load_dataset(folder.path(), Split::test); });
  };
  bad10("empty", {});
  bad10("truncated", {1});
  bad10("truncated", first_bytes(good10, 3072));
  bad10("truncated", joined(good10, {1}));
  bad10("truncated", joined(good10, first_bytes(good10, 3000)));
  bad10("record 0 has label 10", cifar_record({10}, 0));
  bad10("record 1 has label 255", joined(good10, cifar_record({255}, 0)));
  bad10("whole number of records", good100);

  const auto bad100 = [](const std::string& word, const ByteVector& bytes) {
    const TempFolder folder;
    folder.write("test.bin", bytes);
    check_refused("test.bin", word, [&] { load_dataset(folder.path(), Split::test); });
  };
  bad100("empty", {});
  bad100("whole number of records", good10);
  bad100("label 20", cifar_record({20, 0}, 0));
  bad100("label 100", joined(good100, cifar_record({0, 100}, 0)));
  bad100("truncated", first_bytes(good100, 3073));

  const TempFolder folder;
  for (const int i : {1, 2, 4, 5}) folder.write(text("data_batch_", i, ".bin"), good10);
  check_refused("data_batch_3.bin", "no such file", [&] { load_dataset(folder.path(), Split::train); });
}
