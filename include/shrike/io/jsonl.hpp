// JSON lines: a log of one JSON object a line, complete up to its last line whenever the process ends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "shrike/io/json.hpp"

namespace shrike {

// Appends lines to a file. Failures throw Error naming the path and the system's reason.
class JsonLines {
 public:
  // Begins the file anew; or goes on with it after iteration `resume_after`: lines whose "iteration" is greater, written by a
  // process that died after its last checkpoint, are removed, as is a last line that was not finished.
  explicit JsonLines(const std::string& path, std::optional<std::int64_t> resume_after = {});
  ~JsonLines();
  JsonLines(const JsonLines&) = delete;
  JsonLines& operator=(const JsonLines&) = delete;

  // Appends one finished object, handed to the system at once: log.write(JsonWriter().begin_object()....end_object()).
  // When the disk is full, what was written of the line is taken back.
  void write(const JsonWriter& object);

 private:
  std::string path_;
  int descriptor_;
};

}  // namespace shrike
