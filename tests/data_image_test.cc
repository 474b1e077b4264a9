#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "data/resize.h"
#include "tests/image_files.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

void check_planes(const Image& image, int height, int width, int channels, const ByteVector& samples,
                  int tolerance) {
  REQUIRE(image.channels == channels);
  REQUIRE(image.height == height);
  REQUIRE(image.width == width);
  int worst = 0;
  for (int i = 0; i < height * width; ++i) {
    for (int c = 0; c < channels; ++c) {
      worst = std::max(worst, std::abs(image.pixels[c * height * width + i] - samples[i * channels + c]));
    }
  }
  CHECK(worst <= tolerance);
}

void put_u32(ByteVector& bytes, size_t at, uint32_t value) {
  for (int i = 0; i < 4; ++i) bytes[at + i] = uint8_t(value >> (24 - 8 * i));
}

// The PNG with another size in its header, its checksum put right.
ByteVector with_png_size(ByteVector png, uint32_t width, uint32_t height) {
  put_u32(png, 16, width);
  put_u32(png, 20, height);
  put_u32(png, 29, uint32_t(crc32(0, png.data() + 12, 17)));
  return png;
}

}  // namespace

TEST_CASE("image: what is written is read, each format in grey and colour") {
  const TempFolder folder;
  for (const int channels : {1, 3}) {
    const ByteVector samples = smooth(9, 14, channels);
    const auto read = [&](const ByteVector& bytes) { return load_image(folder.write("picture", bytes)); };
    check_planes(read(png_of(9, 14, channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB, samples.data())), 9, 14,
                 channels, samples, 0);
    check_planes(
        read(joined(bytes_of(channels == 1 ? "P5 14 9 255\n" : "P6\n# made up\n14\t9 # so\n255\n"), samples)),
        9, 14, channels, samples, 0);
    // Quality 95, colours subsampled.
    for (const int bands : {0, 2}) {
      check_planes(read(jpeg_of(9, 14, channels, samples, bands)), 9, 14, channels, samples,
                   channels == 1 ? 3 : 8);
    }
  }
}

TEST_CASE("image: a JPEG is decoded smaller where that is allowed") {
  const ByteVector samples = calm(41, 26, 3);
  const ByteVector jpeg = jpeg_of(41, 26, 3, samples), png = png_of(41, 26, PNG_FORMAT_RGB, samples.data());
  for (const int64_t factor : {1, 2, 4, 8}) {
    int told = 0;
    const auto plan = [&](int64_t height, int64_t width) {
      CHECK(height == 41);
      CHECK(width == 26);
      ++told;
      return factor;
    };
    const Image small = decode_image(jpeg, "a.jpg", kMaxPixels, plan);
    CHECK(small.height == (41 + factor - 1) / factor);
    CHECK(small.width == (26 + factor - 1) / factor);
    const Image whole = decode_image(png, "a.png", kMaxPixels, plan);
    CHECK(whole.height == 41);
    CHECK(told == 2);
    // The middles of its pixels are where they were.
    const Image want =
        resize(whole.view(), {0, 0, double(small.height * factor), double(small.width * factor)},
               small.height, small.width, Filter::bilinear);
    for (int64_t y = 1; y + 1 < small.height; ++y)
      for (int64_t x = 1; x + 1 < small.width; ++x)
        CHECK(std::abs(small.pixels[size_t(y * small.width + x)] -
                       want.pixels[size_t(y * small.width + x)]) <= 3);
  }
}

TEST_CASE("image: the inks of a CMYK JPEG become colours") {
  ByteVector inks;
  for (int i = 0; i < 64; ++i) inks.insert(inks.end(), {255, 128, 0, 200});
  const Image image = decode_image(jpeg_of(8, 8, 4, inks), "inks.jpg");
  REQUIRE(image.channels == 3);
  // libjpeg marks such a file as Adobe's, where a value is what is left of white.
  for (const auto& [channel, want] : {std::pair{0, 200}, {1, 100}, {2, 0}})
    CHECK(std::abs(image.pixels[size_t(64 * channel + 27)] - want) <= 3);
}

TEST_CASE("image: transparent PNG is laid on white") {
  const ByteVector rgba = {10, 20, 30, 255, 10, 20, 30, 0};
  const Image image = decode_image(png_of(1, 2, PNG_FORMAT_RGBA, rgba.data()), "a.png");
  CHECK(image.pixels == ByteVector{10, 255, 20, 255, 30, 255});
}

TEST_CASE("image: hostile files") {
  const TempFolder folder;
  const auto bad = [&](const std::string& word, const ByteVector& bytes) {
    const auto file = folder.write("bad.img", bytes);
    check_refused("bad.img", word, [&] { load_image(file); });
  };
  bad("unknown image format (0 bytes)", {});
  bad("unknown image format", bytes_of("P"));
  bad("unknown image format", bytes_of("P4 8 1\n\x01"));
  bad("unknown image format", bytes_of("GIF89a......"));
  check_refused(folder.path().string(), "is a folder", [&] { load_image(folder.path()); });
  check_refused("absent.png", "no such file", [&] { load_image(folder.path() / "absent.png"); });

  const ByteVector png = png_of(40, 30, PNG_FORMAT_RGB, smooth(40, 30, 3).data());
  for (const size_t keep : {4, 8, 20, 33, 45, 60}) bad("PNG", first_bytes(png, keep));
  for (size_t lost = 1; lost < 30; ++lost) bad("truncated PNG", first_bytes(png, png.size() - lost));
  for (size_t place = 4; place < png.size(); ++place) {
    ByteVector flipped = png;
    flipped[place] ^= 0x41;
    bad("PNG", flipped);
  }
  bad("PNG", with_png_size(png, 0, 40));
  bad("PNG", with_png_size(png, 0x7fffffff, 0x7fffffff));
  bad("PNG", with_png_size(png, 0xffffffff, 40));
  bad("too large", with_png_size(png, 100000, 100000));
  bad("truncated PNG", with_png_size(png, 30, 41));

  for (const int bands : {0, 2}) {
    const ByteVector jpeg = jpeg_of(40, 30, 3, smooth(40, 30, 3), bands);
    for (const size_t keep : {size_t{3}, size_t{20}, size_t{100}, jpeg.size() / 2, jpeg.size() - 2}) {
      bad("JPEG", first_bytes(jpeg, keep));
    }
    size_t frame = 0;  // the SOF segment: marker, length, precision, height, width
    while (!(jpeg[frame] == 0xff && jpeg[frame + 1] == (bands > 0 ? 0xc2 : 0xc0))) ++frame;
    ByteVector huge = jpeg;
    huge[frame + 5] = huge[frame + 7] = 0xfe;
    bad("too large", huge);
    ByteVector flat = jpeg;
    flat[frame + 7] = flat[frame + 8] = 0;
    bad("JPEG", flat);
    ByteVector components = jpeg;
    components[frame + 9] = 200;
    bad("JPEG", components);
  }
  bad("JPEG", bytes_of("\xff\xd8\xff\xd9"));

  const ByteVector body(6, 1);
  const auto bad_pnm = [&](const std::string& word, const std::string& header) {
    bad(word, joined(bytes_of(header), body));
  };
  bad_pnm("header", "P5 ");
  bad_pnm("header", "P5 x 2 255\n");
  bad_pnm("header", "P5 -3 2 255\n");
  bad_pnm("header", "P5 # 3 2 255");
  bad_pnm("header", "P5 99999999999999999999 2 255\n");
  bad_pnm("maxval 65535", "P5 3 2 65535\n");
  bad_pnm("maxval 0", "P5 3 2 0\n");
  bad_pnm("empty picture", "P5 0 2 255\n");
  bad_pnm("too large", "P5 2147483647 2147483647 255\n");
  bad_pnm("truncated", "P5 3 3 255\n");
  bad_pnm("truncated", "P6 3 2 255\n");
  bad_pnm("trailing", "P5 3 1 255\n");
  bad("truncated", bytes_of("P5 3 2 255"));
}

TEST_CASE("image: a progressive JPEG of very many scans is refused, though legal") {
  const auto jpeg = [](int bands) { return jpeg_of(16, 16, 3, smooth(16, 16, 3), bands); };
  CHECK(decode_image(jpeg(31), "fine.jpg").channels == 3);
  check_refused("bomb.jpg", "more than 100 scans", [&] { decode_image(jpeg(63), "bomb.jpg"); });
}

TEST_CASE("resize: constants stay, means stay, known values") {
  const Image flat{3, 5, 7, ByteVector(105, 93)};
  for (const auto& [h, w] : {std::pair{1, 1}, {3, 11}, {64, 2}}) {
    const Image out = resize(flat, h, w);
    CHECK(out.pixels == ByteVector(size_t(3 * h * w), 93));
  }
  // Halving takes 1/8, 3/8, 3/8, 1/8 inside, 3/7, 3/7, 1/7 at the edges.
  const Image row{1, 1, 8, {0, 0, 0, 80, 80, 0, 0, 7}};
  CHECK(resize(row, 1, 4).pixels == ByteVector{0, 40, 40, 3});
  // Doubling lies a quarter of the way between pixels.
  CHECK(resize(Image{1, 2, 1, {0, 100}}, 4, 1).pixels == ByteVector{0, 25, 75, 100});

  Image ramp{1, 32, 48, {}};
  for (int y = 0; y < 32; ++y) {
    for (int x = 0; x < 48; ++x) ramp.pixels.push_back(uint8_t(4 * x + y));
  }
  const Image half = resize(ramp, 16, 24);
  for (int y = 1; y < 15; ++y) {
    for (int x = 1; x < 23; ++x) CHECK(std::abs(half.pixels[y * 24 + x] - (8 * x + 2 * y + 2.5)) <= 0.5);
  }
}

TEST_CASE("to_channels: luma and repetition") {
  const Image colour{3, 1, 4, {255, 0, 0, 200, 0, 255, 0, 200, 0, 0, 255, 200}};
  CHECK(to_channels(colour, 1).pixels == ByteVector{76, 150, 29, 200});
  const Image grey{1, 1, 2, {5, 6}};
  CHECK(to_channels(grey, 3).pixels == ByteVector{5, 6, 5, 6, 5, 6});
  CHECK_THROWS_AS(to_channels(grey, 4), Error);
  Image same = colour;  // where there is nothing to do, nothing is copied
  const uint8_t* const before = same.pixels.data();
  CHECK(to_channels(std::move(same), 3).pixels.data() == before);
}
