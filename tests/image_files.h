// Image files made up for the data tests.
#pragma once

#include <png.h>

#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>

#include "tests/data_files.h"

namespace tessera::testing {

// (H, W, C) samples that differ from pixel to pixel and between channels.
inline ByteVector smooth(int height, int width, int channels) {
  ByteVector samples;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) samples.push_back(uint8_t(40 + 5 * x + (3 + c) * y + 30 * c));
    }
  }
  return samples;
}

// The same without the steps where those wrap around: for sides that add up to less than 200.
inline ByteVector calm(int height, int width, int channels) {
  ByteVector samples;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c) samples.push_back(uint8_t(20 + x + y + 10 * c));
  return samples;
}

inline ByteVector png_of(int height, int width, uint32_t format, const void* samples) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = png_uint_32(width);
  image.height = png_uint_32(height);
  image.format = format;
  png_alloc_size_t size = 0;
  REQUIRE(png_image_write_to_memory(&image, nullptr, &size, 0, samples, 0, nullptr));
  ByteVector out(size);
  REQUIRE(png_image_write_to_memory(&image, out.data(), &size, 0, samples, 0, nullptr));
  out.resize(size);
  return out;
}

// Baseline for 0 bands. Else progressive: a scan for the DC of all, then for each component one a band of its
// AC.
inline ByteVector jpeg_of(int height, int width, int channels, ByteVector samples, int bands = 0) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = JDIMENSION(width);
  info.image_height = JDIMENSION(height);
  info.input_components = channels;
  info.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  std::vector<jpeg_scan_info> scans = {{channels, {0, 1, 2}, 0, 0, 0, 0}};
  for (int band = 0; band < bands; ++band) {
    for (int c = 0; c < channels; ++c) {
      scans.push_back({1, {c, 0, 0, 0}, 1 + 63 * band / bands, 63 * (band + 1) / bands, 0, 0});
    }
  }
  if (bands > 0) {
    info.scan_info = scans.data();
    info.num_scans = int(scans.size());
  }
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = samples.data() + size_t(info.next_scanline) * size_t(width * channels);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  ByteVector out(data, data + size);
  free(data);
  return out;
}

}  // namespace tessera::testing
