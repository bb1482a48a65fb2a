// Whole files: read with a limit, written so that a reader sees the old contents or the new, never part of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace shrike {

// A regular file open for reading at any place. Every failure throws Error naming the path and the system's reason.
class InputFile {
 public:
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }  // in bytes, when it was opened

  // Reads exactly `bytes` bytes from `offset` on. Throws Error when the file ends before.
  void read(std::uint64_t offset, void* to, std::size_t bytes) const;

 private:
  std::string path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

// A new file that takes the place of `path` on commit(), and leaves no trace without it. It is written as `path`.tmp in the
// same folder, synced to the disk, then renamed, and the folder is synced: after a crash, a kill or a full disk, `path` is what
// it was before or what was committed. What a killed process left as `path`.tmp is overwritten by the next. Failures throw
// Error naming the path and the system's reason, "No space left on device" for instance.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);  // throws also while something else is writing the same file
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
};

// The file's bytes. Throws Error when it cannot be read, is not a regular file, or has more than `max_bytes` bytes.
std::string read_file(const std::string& path, std::uint64_t max_bytes);

// Replaces `path` by a file of these bytes, or of what `writer` writes; see AtomicFile.
void write_file_atomically(const std::string& path, std::string_view bytes);
void write_file_atomically(const std::string& path, const std::function<void(AtomicFile&)>& writer);

// Writes all the bytes to an open file; returns 0, or the system's error number. For writers that append.
int write_all(int descriptor, const void* data, std::size_t bytes);

}  // namespace shrike
