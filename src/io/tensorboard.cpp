#include "shrike/io/tensorboard.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"

namespace shrike {
namespace {

constexpr std::size_t flush_at_bytes = 64 << 10;

constexpr std::array<std::uint32_t, 256> crc_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}();

// The little-endian bytes of a number.
template <class T> std::string bytes_of(T value) {
  static_assert(std::endian::native == std::endian::little);
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// Protocol buffer encoding: a field is its number and wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes),
// then the value.
std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes += static_cast<char>(value);
}
std::string key(int field, int type) { return varint(static_cast<std::uint64_t>(field) << 3 | static_cast<unsigned>(type)); }
std::string integer(int field, std::int64_t value) { return key(field, 0) + varint(static_cast<std::uint64_t>(value)); }
std::string number(int field, double value) { return key(field, 1) + bytes_of(value); }
std::string number(int field, float value) { return key(field, 5) + bytes_of(value); }
std::string block(int field, std::string_view bytes) { return key(field, 2) + varint(bytes.size()).append(bytes); }

std::string frame(const std::string& record) {
  const std::string length = bytes_of(std::uint64_t{record.size()});
  return length + bytes_of(masked_crc32c(length)) + record + bytes_of(masked_crc32c(record));
}

std::string host_name() {
  char name[256] = "";
  if (::gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') return "localhost";
  return name;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<unsigned char>(c)) & 0xffu];
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

EventWriter::EventWriter(const std::string& folder, std::optional<std::int64_t> purge_from,
                         std::chrono::milliseconds flush_every)
    : flush_every_(flush_every), flushed_(std::chrono::steady_clock::now()) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
  const std::string base = message(folder, "/events.out.tfevents.", seconds.count(), ".", host_name());
  // TensorBoard reads the files of a folder in order of their names: a second one in the same second sorts after the first.
  for (int i = 0; descriptor_ < 0; ++i) {
    path_ = i == 0 ? base : message(base, ".", i / 100, i / 10 % 10, i % 10);
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && (errno != EEXIST || i > 999)) fail(path_, ": cannot write: ", std::strerror(errno));
  }
  event(block(3, "brain.Event:2"), 0);                          // file_version
  if (purge_from) event(block(7, integer(1, 1)), *purge_from);  // session_log {status: START}
  try {
    flush();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

EventWriter::~EventWriter() {
  write_all(descriptor_, buffer_.data(), buffer_.size());
  ::close(descriptor_);
}

void EventWriter::scalar(std::string_view tag, float value, std::int64_t step) {
  summary(block(1, tag) + number(2, value), step);
}

void EventWriter::image(std::string_view tag, std::string_view encoded, int height, int width, std::int64_t step) {
  constexpr int rgb = 3;
  summary(block(1, tag) + block(4, integer(1, height) + integer(2, width) + integer(3, rgb) + block(4, encoded)), step);
}

void EventWriter::summary(std::string_view value, std::int64_t step) {
  event(block(5, block(1, value)), step);
  if (buffer_.size() >= flush_at_bytes || std::chrono::steady_clock::now() - flushed_ >= flush_every_) flush();
}

void EventWriter::event(std::string_view fields, std::int64_t step) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  buffer_ += frame((number(1, now.count()) + integer(2, step)).append(fields));
}

void EventWriter::flush() {
  const std::string bytes = std::exchange(buffer_, {});
  flushed_ = std::chrono::steady_clock::now();
  if (const int error = write_all(descriptor_, bytes.data(), bytes.size())) {
    fail(path_, ": cannot write: ", std::strerror(error));
  }
}

}  // namespace shrike
