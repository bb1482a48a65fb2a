#include "shrike/io/file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "shrike/core/check.hpp"

namespace shrike {
namespace {

// Linux transfers at most this much in one call.
constexpr std::size_t most_at_once = std::size_t{1} << 30;

[[noreturn]] void fail_for(const std::string& path, const char* action, int error) {
  fail(path, ": cannot ", action, ": ", std::strerror(error));
}

int open_retrying(const std::string& path, int flags, mode_t mode = 0) {
  for (;;) {
    const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    if (descriptor >= 0 || errno != EINTR) return descriptor;
  }
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Makes a rename in the folder outlive a power failure, on file systems that can sync a folder.
int sync_folder(const std::string& folder) {
  const int descriptor = open_retrying(folder, O_RDONLY | O_DIRECTORY);
  if (descriptor < 0) return errno;
  const int error = ::fsync(descriptor) == 0 || errno == EINVAL ? 0 : errno;
  ::close(descriptor);
  return error;
}

// Opens and locks `path`, which may be left over from a killed process. Returns -1 with errno set on failure.
int open_locked(const std::string& path) {
  for (;;) {
    const int descriptor = open_retrying(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0666);
    if (descriptor < 0) return -1;
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(descriptor);
      errno = EWOULDBLOCK;
      return -1;
    }
    // Another process may have renamed the file away between our opening and our locking it.
    struct stat ours {
    }, named{};
    if (::fstat(descriptor, &ours) == 0 && ::stat(path.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
        ours.st_dev == named.st_dev) {
      return descriptor;
    }
    ::close(descriptor);
  }
}

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path), descriptor_(open_retrying(path, O_RDONLY | O_NONBLOCK)) {
  if (descriptor_ < 0) fail_for(path, "open", errno);
  struct stat status {};
  const int error = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
  if (error != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    if (error != 0) fail_for(path, "open", error);
    fail(path, S_ISDIR(status.st_mode) ? ": is a folder, expected a file" : ": is not a regular file");
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(std::uint64_t offset, void* to, std::size_t bytes) const {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, at, std::min(bytes, most_at_once), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_for(path_, "read", errno);
    SHRIKE_CHECK(got > 0, path_, ": ends at byte ", offset, ", ", bytes, " bytes more were expected");
    at += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::size_t>(got);
  }
}

AtomicFile::AtomicFile(const std::string& path) : path_(path), temporary_(path + ".tmp") {
  struct stat status {};
  // A rename would replace a device or a folder's entry by a file.
  if (::stat(path.c_str(), &status) == 0) {
    SHRIKE_CHECK(S_ISREG(status.st_mode), path, ": cannot write: exists and is not a regular file");
  }
  descriptor_ = open_locked(temporary_);
  if (descriptor_ < 0 && errno == EWOULDBLOCK) fail(path, ": cannot write: it is being written by something else");
  if (descriptor_ < 0) fail_for(path, "write", errno);
  if (::ftruncate(descriptor_, 0) != 0) {
    const int error = errno;
    ::close(descriptor_);
    fail_for(path, "write", error);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::unlink(temporary_.c_str());
  ::close(descriptor_);
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  if (const int error = write_all(descriptor_, data, bytes)) fail_for(path_, "write", error);
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_for(path_, "write", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_for(path_, "write", errno);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 && errno != EINTR) fail_for(path_, "write", errno);
  if (const int error = sync_folder(folder_of(path_))) fail_for(folder_of(path_), "sync the folder", error);
}

std::string read_file(const std::string& path, std::uint64_t max_bytes) {
  const InputFile file(path);
  SHRIKE_CHECK(file.size() <= max_bytes, path, ": has ", file.size(), " bytes, at most ", max_bytes, " are accepted");
  std::string bytes(file.size(), '\0');
  file.read(0, bytes.data(), bytes.size());
  return bytes;
}

void write_file_atomically(const std::string& path, const std::function<void(AtomicFile&)>& writer) {
  AtomicFile file(path);
  writer(file);
  file.commit();
}

void write_file_atomically(const std::string& path, std::string_view bytes) {
  write_file_atomically(path, [&](AtomicFile& file) { file.write(bytes); });
}

int write_all(int descriptor, const void* data, std::size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor, at, std::min(bytes, most_at_once));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    at += written;
    bytes -= static_cast<std::size_t>(written);
  }
  return 0;
}

}  // namespace shrike
