// The files of a VOC folder. Not part of the library's interface.
#pragma once

#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

namespace shrike::voc {

// "a", "b" of "a+b".
std::vector<std::string> parts(const std::string& text, char separator);

// "a, b"
std::string joined(const std::vector<std::string>& values);

// The folders to read: ROOT, or those of the years asked for, in ROOT or ROOT/VOCdevkit.
std::vector<std::filesystem::path> folders(const std::filesystem::path& root, const std::string& years);

// ImageSets/Main/SPLIT.txt
std::string split_path(const std::filesystem::path& folder, const std::string& split);

// The ids of one split, in the file's order; blank lines do not count.
std::vector<std::string> read_split(const std::filesystem::path& folder, const std::string& split);

// Image files by their name without extension.
class ImageFiles {
 public:
  explicit ImageFiles(const std::filesystem::path& folder);

  // The path of the one image with this id.
  std::string find(const std::string& id) const;

 private:
  std::filesystem::path folder_;
  std::unordered_map<std::string, std::vector<std::string>> names_;
};

}  // namespace shrike::voc
