// TensorBoard's event files: TFRecord frames (tensorflow/core/lib/io/record_writer) around Event messages (event.proto, in the
// protocol buffer encoding).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace shrike {

// CRC-32C (Castagnoli, RFC 3720), as the frames use it.
std::uint32_t crc32c(std::string_view bytes);

// The same rotated and offset, so that a checksum of bytes that hold checksums is sound.
std::uint32_t masked_crc32c(std::string_view bytes);

// Writes one new events.out.tfevents.SECONDS.HOST file. Records reach the file at flush(), when 64 kB have gathered, when
// `flush_every` has passed since the last time and something is added, and at the end. Failures throw Error naming the path and
// the system's reason; the destructor, which cannot, drops what it cannot write.
class EventWriter {
 public:
  // In `folder`, which is made if need be. A run that goes on after step N begins with purge_from = N + 1: TensorBoard then
  // forgets what the earlier files in the folder say of that step and later ones.
  explicit EventWriter(const std::string& folder, std::optional<std::int64_t> purge_from = {},
                       std::chrono::milliseconds flush_every = std::chrono::seconds(10));
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  void scalar(std::string_view tag, float value, std::int64_t step);
  // An encoded PNG or JPEG, shown under `tag`.
  void image(std::string_view tag, std::string_view encoded, int height, int width, std::int64_t step);
  void flush();

  const std::string& path() const { return path_; }

 private:
  void summary(std::string_view value, std::int64_t step);
  void event(std::string_view fields, std::int64_t step);

  std::string path_;
  std::string buffer_;
  std::chrono::milliseconds flush_every_;
  std::chrono::steady_clock::time_point flushed_;
  int descriptor_ = -1;
};

}  // namespace shrike
