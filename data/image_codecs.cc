#include "data/image_codecs.h"

#include <png.h>
#include <zlib.h>

#include <csetjmp>
#include <cstdio>

// After <cstdio>: these two do not include it themselves.
#include <jerror.h>
#include <jpeglib.h>

#include "engine/base/check.h"

namespace tessera {

namespace {

void check_size(int64_t height, int64_t width, std::string_view what, int64_t max_pixels) {
  TESSERA_CHECK_AS(Exit::data, height > 0 && width > 0, what, ": empty picture, ", width, " x ", height,
                   " pixels");
  TESSERA_CHECK_AS(Exit::data, height <= max_pixels / width, what, ": too large, ", width, " x ", height,
                   " pixels, the limit is ", max_pixels, " in all");
}

}  // namespace

Interleaved blank_picture(int64_t channels, int64_t height, int64_t width, std::string_view what,
                          int64_t max_pixels) {
  check_size(height, width, what, max_pixels);
  return {channels, height, width, std::vector<uint8_t>(size_t(channels * height * width))};
}

// ---- PNG

namespace {

// libpng's simplified interface stops at the last row and never sees the checksum behind it: a file cut or
// changed there would pass. So the chunks (length, 4 letters, data, checksum of letters and data) are checked
// first.
void check_png_chunks(Bytes bytes, std::string_view what) {
  const auto u32 = [&](size_t at) {
    return uint32_t{bytes[at]} << 24 | uint32_t{bytes[at + 1]} << 16 | uint32_t{bytes[at + 2]} << 8 |
           bytes[at + 3];
  };
  constexpr size_t kSignature = 8, kAround = 12;
  for (size_t at = kSignature;;) {
    TESSERA_CHECK_AS(Exit::data, bytes.size() >= at + kAround && u32(at) <= bytes.size() - at - kAround, what,
                     ": truncated PNG, its chunks do not end within the file");
    const uint32_t length = u32(at);
    const auto sum = crc32(0, bytes.data() + at + 4, length + 4);
    TESSERA_CHECK_AS(Exit::data, sum == u32(at + 8 + length), what,
                     ": corrupt PNG, wrong checksum of the chunk at byte ", at);
    constexpr uint32_t kEnd = 0x49454E44;  // IEND
    if (u32(at + 4) == kEnd) return;
    at += kAround + length;
  }
}

}  // namespace

// The simplified interface catches its own errors: no long jump crosses this code.
Interleaved decode_png(Bytes bytes, std::string_view what, int64_t max_pixels) {
  check_png_chunks(bytes, what);
  struct Reader : png_image {
    Reader() : png_image{} { version = PNG_IMAGE_VERSION; }
    ~Reader() { png_image_free(this); }
  } reader;
  TESSERA_CHECK_AS(Exit::data, png_image_begin_read_from_memory(&reader, bytes.data(), bytes.size()), what,
                   ": corrupt PNG (", reader.message, ")");
  const bool colour = (reader.format & PNG_FORMAT_FLAG_COLOR) != 0;
  reader.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  // 16-bit samples without a stated gamma are taken as sRGB, like all others.
  reader.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  Interleaved out = blank_picture(colour ? 3 : 1, reader.height, reader.width, what, max_pixels);
  const png_color white = {255, 255, 255};
  TESSERA_CHECK_AS(Exit::data, png_image_finish_read(&reader, &white, out.samples.data(), 0, nullptr), what,
                   ": corrupt or truncated PNG (", reader.message, ")");
  return out;
}

std::vector<uint8_t> encode_png(const Image& image) {
  const int64_t plane = image.height * image.width;
  std::vector<uint8_t> samples(image.pixels.size());
  for (int64_t c = 0; c < image.channels; ++c)
    for (int64_t i = 0; i < plane; ++i)
      samples[size_t(i * image.channels + c)] = image.pixels[size_t(c * plane + i)];
  png_image writer{};
  writer.version = PNG_IMAGE_VERSION;
  writer.width = png_uint_32(image.width);
  writer.height = png_uint_32(image.height);
  writer.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(writer);
  std::vector<uint8_t> file(size);
  TESSERA_CHECK(png_image_write_to_memory(&writer, file.data(), &size, 0, samples.data(), 0, nullptr),
                "PNG of ", image.width, " x ", image.height, " pixels: ", writer.message);
  file.resize(size);
  return file;
}

// ---- JPEG

namespace {

// libjpeg reports an error by calling back, and must not be returned to: the way out is a long jump, which
// skips destructors. So the jump stays inside guarded(), and what runs there creates no object that has one.
struct JpegReader {
  jpeg_decompress_struct lib{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf way_out;
  char message[JMSG_LENGTH_MAX] = "";

  JpegReader() {
    lib.err = jpeg_std_error(&errors);
    lib.client_data = this;
    errors.error_exit = [](j_common_ptr info) {
      auto& self = *static_cast<JpegReader*>(info->client_data);
      info->err->format_message(info, self.message);
      std::longjmp(self.way_out, 1);
    };
    // libjpeg paints what is missing grey and only warns. That is not the picture, so a warning is an error
    // here; stray bytes between segments alone, which some cameras write, touch no pixel.
    errors.emit_message = [](j_common_ptr info, int level) {
      constexpr int kWarning = -1;
      if (level == kWarning && info->err->msg_code != JWRN_EXTRANEOUS_DATA) info->err->error_exit(info);
    };
    // A progressive file may repeat tiny scans over a huge picture.
    progress.progress_monitor = [](j_common_ptr info) {
      constexpr int kMaxScans = 100;
      if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMaxScans) {
        auto& self = *static_cast<JpegReader*>(info->client_data);
        std::snprintf(self.message, sizeof self.message, "more than %d scans", kMaxScans);
        std::longjmp(self.way_out, 1);
      }
    };
  }
  ~JpegReader() { jpeg_destroy_decompress(&lib); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  // False where f ran into an error, which `message` tells.
  template <class F>
  bool guarded(const F& f) {
    if (setjmp(way_out)) return false;
    f();
    return true;
  }
};

// Colour is what the inks leave of white. Adobe's files hold what is left of each.
Interleaved from_cmyk(const Interleaved& inks, bool inverted) {
  Interleaved out{3, inks.height, inks.width, std::vector<uint8_t>(inks.samples.size() / 4 * 3)};
  const auto left = [&](uint8_t ink) { return inverted ? int{ink} : 255 - ink; };
  for (size_t i = 0; i < out.samples.size() / 3; ++i)
    for (size_t c = 0; c < 3; ++c)
      out.samples[3 * i + c] =
          uint8_t((left(inks.samples[4 * i + c]) * left(inks.samples[4 * i + 3]) + 127) / 255);
  return out;
}

}  // namespace

Interleaved decode_jpeg(Bytes bytes, std::string_view what, int64_t max_pixels, const Reduction& reduction) {
  JpegReader reader;
  jpeg_decompress_struct& lib = reader.lib;
  const bool header = reader.guarded([&] {
    jpeg_create_decompress(&lib);
    lib.progress = &reader.progress;
    jpeg_mem_src(&lib, bytes.data(), static_cast<unsigned long>(bytes.size()));
    jpeg_read_header(&lib, TRUE);
    lib.out_color_space = lib.num_components == 1   ? JCS_GRAYSCALE
                          : lib.num_components == 4 ? JCS_CMYK  // which libjpeg does not turn into RGB
                                                    : JCS_RGB;
  });
  TESSERA_CHECK_AS(Exit::data, header, what, ": corrupt JPEG (", reader.message, ")");
  check_size(lib.image_height, lib.image_width, what, max_pixels);
  if (reduction) lib.scale_denom = unsigned(reduction(lib.image_height, lib.image_width));

  const bool sized = reader.guarded([&] { jpeg_calc_output_dimensions(&lib); });
  TESSERA_CHECK_AS(Exit::data, sized, what, ": corrupt JPEG (", reader.message, ")");
  Interleaved out =
      blank_picture(lib.out_color_components, lib.output_height, lib.output_width, what, max_pixels);
  uint8_t* const samples = out.samples.data();
  const size_t stride = size_t(out.channels * out.width);
  const bool body = reader.guarded([&] {
    jpeg_start_decompress(&lib);
    while (lib.output_scanline < lib.output_height) {
      JSAMPROW row = samples + lib.output_scanline * stride;
      jpeg_read_scanlines(&lib, &row, 1);
    }
    jpeg_finish_decompress(&lib);
  });
  TESSERA_CHECK_AS(Exit::data, body, what, ": corrupt or truncated JPEG (", reader.message, ")");
  return out.channels == 4 ? from_cmyk(out, lib.saw_Adobe_marker) : out;
}

// ---- PGM and PPM

namespace {

bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Takes the next number of the header off the front, past white space and '#' comments.
int64_t take_number(Bytes& left, std::string_view what) {
  size_t i = 0;
  while (i < left.size() && (is_space(left[i]) || left[i] == '#')) {
    if (left[i] == '#') {
      while (i < left.size() && left[i] != '\n') ++i;
    } else {
      ++i;
    }
  }
  constexpr int64_t kMaxNumber = int64_t{1} << 31;
  int64_t number = 0;
  const size_t start = i;
  for (; i < left.size() && left[i] >= '0' && left[i] <= '9' && number < kMaxNumber; ++i) {
    number = number * 10 + (left[i] - '0');
  }
  TESSERA_CHECK_AS(Exit::data, i > start && number < kMaxNumber, what,
                   ": corrupt PGM or PPM header, expected width, height and maxval");
  left = left.subspan(i);
  return number;
}

}  // namespace

Interleaved decode_pnm(Bytes bytes, std::string_view what, int64_t max_pixels) {
  const int64_t channels = bytes[1] == '5' ? 1 : 3;
  Bytes left = bytes.subspan(2);
  const int64_t width = take_number(left, what), height = take_number(left, what),
                maxval = take_number(left, what);
  TESSERA_CHECK_AS(Exit::data, maxval == 255, what, ": PGM or PPM maxval ", maxval, ", only 255 is read");
  TESSERA_CHECK_AS(Exit::data, !left.empty() && is_space(left[0]), what,
                   ": truncated after the PGM or PPM header");
  left = left.subspan(1);
  Interleaved out = blank_picture(channels, height, width, what, max_pixels);
  TESSERA_CHECK_AS(Exit::data, left.size() == out.samples.size(), what, ": ", left.size(),
                   " bytes of pixels, but ", width, " x ", height, " x ", channels, " need ",
                   out.samples.size(), "; truncated or trailing bytes");
  out.samples.assign(left.begin(), left.end());
  return out;
}

}  // namespace tessera
