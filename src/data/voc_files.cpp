#include "voc_files.hpp"

#include <algorithm>
#include <set>
#include <sstream>

#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"

namespace shrike::voc {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t max_split_bytes = 256u << 20;

// Names of the entries of a folder, sorted; none if it cannot be read.
std::vector<std::string> entries(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_voc_folder(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder / "ImageSets" / "Main", error) && fs::is_directory(folder / "Annotations", error);
}

// Splits that have a file, without VOC's lists for single classes (aeroplane_trainval).
std::string available_splits(const fs::path& folder) {
  std::set<std::string> stems;
  for (const std::string& name : entries(folder)) {
    if (name.ends_with(".txt")) stems.insert(name.substr(0, name.size() - 4));
  }
  std::vector<std::string> result;
  for (const std::string& stem : stems) {
    const auto underscore = stem.rfind('_');
    if (underscore == std::string::npos || !stems.contains(stem.substr(underscore + 1))) result.push_back(stem);
  }
  return result.empty() ? "no list at all" : joined(result);
}

bool is_plain_name(const std::string& name) {
  const bool special = name.empty() || name == "." || name == ".." || name.size() > 250;
  return !special && std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
}

}  // namespace

std::vector<std::string> parts(const std::string& text, char separator) {
  std::vector<std::string> result;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) result.push_back(part);
  return result;
}

std::string joined(const std::vector<std::string>& values) {
  std::string result;
  for (const std::string& value : values) result += (result.empty() ? "" : ", ") + value;
  return result;
}

std::vector<fs::path> folders(const fs::path& root, const std::string& years) {
  std::error_code error;
  SHRIKE_CHECK(fs::is_directory(root, error), root.string(), ": there is no such folder");
  std::vector<fs::path> found;
  std::vector<std::string> names;
  for (const fs::path& parent : {root, root / "VOCdevkit"}) {
    for (const std::string& name : entries(parent)) {
      if (!name.starts_with("VOC") || !is_voc_folder(parent / name)) continue;
      found.push_back(parent / name);
      names.push_back(name);
    }
  }
  if (!years.empty()) {
    std::vector<fs::path> chosen;
    for (const std::string& year : parts(years, '+')) {
      const auto at = std::find(names.begin(), names.end(), "VOC" + year);
      SHRIKE_CHECK(at != names.end(), root.string(), ": has no VOC folder VOC", year, "; it has ",
                   names.empty() ? "none" : joined(names));
      chosen.push_back(found[static_cast<std::size_t>(at - names.begin())]);
    }
    return chosen;
  }
  if (is_voc_folder(root)) return {root};
  SHRIKE_CHECK(!found.empty(), root.string(),
               ": is not a VOC folder: expected JPEGImages, Annotations and ImageSets/Main in it, or VOCdevkit/VOC2007");
  SHRIKE_CHECK(found.size() == 1, root.string(), ": has several VOC folders, ", joined(names), ": choose by year");
  return found;
}

std::string split_path(const fs::path& folder, const std::string& split) {
  return (folder / "ImageSets" / "Main" / (split + ".txt")).string();
}

std::vector<std::string> read_split(const fs::path& folder, const std::string& split) {
  const fs::path lists = folder / "ImageSets" / "Main";
  SHRIKE_CHECK(is_plain_name(split), "split '", split, "': expected the name of a list in ", lists.string());
  const std::string path = split_path(folder, split);
  std::error_code error;
  SHRIKE_CHECK(fs::exists(path, error), path, ": there is no such split; available: ", available_splits(lists));

  std::string text = read_file(path, max_split_bytes);
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  std::vector<std::string> ids;
  int line = 0;
  for (std::string id : parts(text, '\n')) {
    ++line;
    id.erase(id.find_last_not_of(" \t\r") + 1);
    id.erase(0, id.find_first_not_of(" \t"));
    if (id.empty()) continue;
    SHRIKE_CHECK(is_plain_name(id), path, ":", line, ": image id '", id.substr(0, 80), "' is not a plain file name");
    ids.push_back(std::move(id));
  }
  SHRIKE_CHECK(!ids.empty(), path, ": the split is empty");
  return ids;
}

ImageFiles::ImageFiles(const fs::path& folder) : folder_(folder / "JPEGImages") {
  for (const std::string& name : entries(folder_)) {
    const auto dot = name.rfind('.');
    if (dot == std::string::npos) continue;
    std::string extension = name.substr(dot + 1);
    for (char& c : extension) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (extension == "jpg" || extension == "jpeg" || extension == "png") names_[name.substr(0, dot)].push_back(name);
  }
}

std::string ImageFiles::find(const std::string& id) const {
  const auto found = names_.find(id);
  SHRIKE_CHECK(found != names_.end(), (folder_ / id).string(), ": there is no such image (.jpg, .jpeg or .png)");
  SHRIKE_CHECK(found->second.size() == 1, folder_.string(), ": has ", found->second.size(), " images for the id ", id, ": ",
               joined(found->second));
  return (folder_ / found->second[0]).string();
}

}  // namespace shrike::voc
