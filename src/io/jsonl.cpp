#include "shrike/io/jsonl.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"

namespace shrike {
namespace {

// Whether a line is an object that was written at or before `iteration`. Lines of earlier runs carry what this one does not
// know.
bool keeps(std::string_view line, std::int64_t iteration) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
  if (!object.is_object()) return false;
  const auto found = object.find("iteration");
  return found == object.end() || !found->is_number() || found->get<double>() <= static_cast<double>(iteration);
}

void remove_after(const std::string& path, std::int64_t iteration) {
  if (!std::filesystem::exists(path)) return;
  const std::string text = read_file(path, std::numeric_limits<std::int32_t>::max());
  std::string kept;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string::npos) break;  // cut off
    const std::string_view line = std::string_view(text).substr(at, end + 1 - at);
    if (keeps(line, iteration)) kept += line;
    at = end + 1;
  }
  if (kept != text) write_file_atomically(path, kept);
}

}  // namespace

JsonLines::JsonLines(const std::string& path, std::optional<std::int64_t> resume_after) : path_(path) {
  if (resume_after) remove_after(path, *resume_after);
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (resume_after ? 0 : O_TRUNC), 0666);
  if (descriptor_ < 0) fail(path, ": cannot write: ", std::strerror(errno));
}

JsonLines::~JsonLines() { ::close(descriptor_); }

void JsonLines::write(const JsonWriter& object) {
  const std::string line = object.str() + '\n';
  const off_t before = ::lseek(descriptor_, 0, SEEK_END);
  if (const int error = write_all(descriptor_, line.data(), line.size())) {
    if (before >= 0 && ::ftruncate(descriptor_, before) != 0) errno = 0;  // the reader passes over a line that was cut off
    fail(path_, ": cannot write: ", std::strerror(error));
  }
}

}  // namespace shrike
