// Reads the text files in tests/golden: a line `name sizes...`, then a line of the values in row-major order.
#pragma once

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "shrike/core/tensor.hpp"

namespace shrike {

// Where the golden called `file` is.
inline std::string golden_path(const std::string& file) {
  const char* folder = std::getenv("SHRIKE_GOLDEN");
  return std::string(folder ? folder : "tests/golden") + "/" + file;
}

class Golden {
 public:
  explicit Golden(const std::string& file) {
    const std::string path = golden_path(file);
    std::ifstream in(path);
    SHRIKE_CHECK(in, path, ": cannot be opened");
    for (std::string head, body; std::getline(in, head) && std::getline(in, body);) {
      std::istringstream words(head);
      std::string name;
      words >> name;
      Record record;
      for (std::int64_t size = 0; words >> size;) record.shape.push_back(size);
      std::istringstream values(body);
      for (std::string value; values >> value;) record.values.push_back(std::stod(value));
      records_[name] = std::move(record);
    }
  }

  bool has(const std::string& name) const { return records_.count(name) > 0; }

  template <class T = double> std::vector<T> values(const std::string& name) const {
    const std::vector<double>& all = at(name).values;
    return {all.begin(), all.end()};
  }

  Tensor f32(const std::string& name) const { return tensor(Shape(at(name).shape), values<float>(name)); }
  Tensor s32(const std::string& name) const { return tensor(Shape(at(name).shape), values<std::int32_t>(name)); }

 private:
  struct Record {
    std::vector<std::int64_t> shape;
    std::vector<double> values;
  };

  const Record& at(const std::string& name) const {
    const auto found = records_.find(name);
    SHRIKE_CHECK(found != records_.end(), "the golden file has no record ", name);
    return found->second;
  }

  std::map<std::string, Record> records_;
};

}  // namespace shrike
