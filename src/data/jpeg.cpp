// JPEG by libjpeg-turbo. libjpeg reports errors by a callback that must not return: it jumps back to a setjmp. Between the two
// there are C frames and locals without destructors only; everything with a destructor lives in the callers of start() and
// read().
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <jerror.h>
#include <jpeglib.h>

#include "image_codecs.hpp"
#include "shrike/core/check.hpp"

namespace shrike {
namespace {

constexpr int max_scans = 100;  // of a progressive file; encoders write about ten

struct ErrorState {
  jpeg_error_mgr base;  // first, so that libjpeg's pointer to it is one to this
  std::jmp_buf jump;
  char text[JMSG_LENGTH_MAX];
};

ErrorState& state(j_common_ptr info) { return *reinterpret_cast<ErrorState*>(info->err); }

[[noreturn]] void jump_back(j_common_ptr info) {
  info->err->format_message(info, state(info).text);
  std::longjmp(state(info).jump, 1);
}

// Level -1 is a warning about damage. Stray bytes between segments and odd markers leave the pixels intact, and are common.
void on_message(j_common_ptr info, int level) {
  const int code = info->err->msg_code;
  const bool harmless = code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM;
  if (level < 0 && !harmless) jump_back(info);
}

void on_progress(j_common_ptr info) {
  if (!info->is_decompressor) return;
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= max_scans) return;
  std::snprintf(state(info).text, sizeof(state(info).text), "more than %d scans", max_scans);
  std::longjmp(state(info).jump, 1);
}

void install(ErrorState& errors) {
  jpeg_std_error(&errors.base);
  errors.base.error_exit = jump_back;
  errors.base.emit_message = on_message;
  errors.base.output_message = [](j_common_ptr) {};
}

class Decoder {
 public:
  Decoder() {
    install(errors_);
    info_.err = &errors_.base;
    progress_.progress_monitor = on_progress;
  }
  ~Decoder() { jpeg_destroy_decompress(&info_); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Reads up to the first scan. False on failure: see error().
  bool start(const std::uint8_t* bytes, std::size_t size) {
    if (setjmp(errors_.jump)) return false;
    jpeg_create_decompress(&info_);
    info_.progress = &progress_;
    jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xffff);
    jpeg_mem_src(&info_, bytes, size);
    jpeg_read_header(&info_, TRUE);
    inks_ = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
    info_.out_color_space = inks_ ? JCS_CMYK : JCS_RGB;
    return true;
  }

  // Decodes into [height, width, 3] bytes.
  bool read(std::uint8_t* rgb) {
    if (setjmp(errors_.jump)) return false;
    jpeg_start_decompress(&info_);
    const std::size_t width = info_.output_width;
    JSAMPARRAY line = nullptr;
    if (inks_) {
      line = info_.mem->alloc_sarray(reinterpret_cast<j_common_ptr>(&info_), JPOOL_IMAGE, info_.output_width * 4, 1);
    }
    while (info_.output_scanline < info_.output_height) {
      JSAMPROW row = rgb + info_.output_scanline * width * 3;
      jpeg_read_scanlines(&info_, inks_ ? line : &row, 1);
      if (inks_) convert_inks(line[0], width, row);
    }
    jpeg_finish_decompress(&info_);
    return true;
  }

  std::int64_t height() const { return info_.image_height; }
  std::int64_t width() const { return info_.image_width; }
  const char* error() const { return errors_.text; }

  int orientation() const {
    for (jpeg_saved_marker_ptr marker = info_.marker_list; marker; marker = marker->next) {
      if (marker->data_length > 6 && std::memcmp(marker->data, "Exif\0\0", 6) == 0) {
        return codecs::exif_orientation({marker->data + 6, marker->data_length - 6});
      }
    }
    return 1;
  }

 private:
  // Adobe's files store 255 - ink. Each ink and black let through what they do not absorb.
  void convert_inks(const std::uint8_t* cmyk, std::size_t width, std::uint8_t* rgb) const {
    const unsigned flip = info_.saw_Adobe_marker ? 0 : 255;
    for (std::size_t x = 0; x < width; ++x) {
      const unsigned light = cmyk[4 * x + 3] ^ flip;
      for (std::size_t c = 0; c < 3; ++c) {
        rgb[3 * x + c] = static_cast<std::uint8_t>(((cmyk[4 * x + c] ^ flip) * light + 127) / 255);
      }
    }
  }

  jpeg_decompress_struct info_{};
  ErrorState errors_{};
  jpeg_progress_mgr progress_{};
  bool inks_ = false;
};

class Encoder {
 public:
  Encoder() {
    install(errors_);
    info_.err = &errors_.base;
  }
  ~Encoder() {
    jpeg_destroy_compress(&info_);
    std::free(bytes);
  }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  bool run(const Image& image, int quality) {
    if (setjmp(errors_.jump)) return false;
    jpeg_create_compress(&info_);
    jpeg_mem_dest(&info_, &bytes, &size);
    info_.image_height = static_cast<JDIMENSION>(image.height);
    info_.image_width = static_cast<JDIMENSION>(image.width);
    info_.input_components = 3;
    info_.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info_);
    jpeg_set_quality(&info_, quality, TRUE);
    jpeg_start_compress(&info_, TRUE);
    while (info_.next_scanline < info_.image_height) {
      JSAMPROW row = const_cast<JSAMPROW>(image.pixel(static_cast<int>(info_.next_scanline), 0));
      jpeg_write_scanlines(&info_, &row, 1);
    }
    jpeg_finish_compress(&info_);
    return true;
  }

  const char* error() const { return errors_.text; }
  unsigned char* bytes = nullptr;
  unsigned long size = 0;

 private:
  jpeg_compress_struct info_{};
  ErrorState errors_{};
};

}  // namespace

Image codecs::decode_jpeg(Bytes bytes, const std::string& name) {
  Decoder decoder;
  SHRIKE_CHECK(decoder.start(bytes.data(), bytes.size()), name, ": cannot decode the JPEG: ", decoder.error());
  check_size(decoder.height(), decoder.width(), name);
  // A block of 64 pixels takes a bit or more unless it is arithmetic-coded; that a few bytes ask for gigabytes is no accident.
  const std::int64_t pixels = decoder.height() * decoder.width();
  SHRIKE_CHECK(pixels <= 1'000'000 + static_cast<std::int64_t>(bytes.size()) * 4096, name, ": corrupt JPEG: ", bytes.size(),
               " bytes cannot hold ", decoder.width(), "x", decoder.height(), " pixels");
  Image image = make_image(static_cast<int>(decoder.height()), static_cast<int>(decoder.width()));
  const int orientation = decoder.orientation();  // libjpeg forgets the markers when it has finished
  SHRIKE_CHECK(decoder.read(image.rgb.data()), name, ": cannot decode the JPEG: ", decoder.error());
  return apply_orientation(std::move(image), orientation);
}

std::string encode_jpeg(const Image& image, int quality) {
  SHRIKE_CHECK(quality >= 1 && quality <= 100, "JPEG quality ", quality, ": expected 1 to 100");
  codecs::check_size(image.height, image.width, "an image to encode");
  SHRIKE_CHECK(image.rgb.size() == static_cast<std::size_t>(image.height) * image.width * 3, "an image of ", image.width, "x",
               image.height, " pixels has ", image.rgb.size(), " bytes");
  Encoder encoder;
  SHRIKE_CHECK(encoder.run(image, quality), "an image of ", image.width, "x", image.height,
               " pixels cannot be encoded as JPEG: ", encoder.error());
  return {reinterpret_cast<const char*>(encoder.bytes), encoder.size};
}

}  // namespace shrike
