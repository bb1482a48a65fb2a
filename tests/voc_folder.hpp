// A small VOC folder for tests, made line by line, and where the real data lie.
#pragma once

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "paths.hpp"
#include "shrike/data/image.hpp"
#include "temporary_folder.hpp"

inline void write_text(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string voc_object(const std::string& name, const std::string& x1, const std::string& y1, const std::string& x2,
                              const std::string& y2, const std::string& extra = "") {
  return "<object><name>" + name + "</name>" + extra + "<bndbox><xmin>" + x1 + "</xmin><ymin>" + y1 + "</ymin><xmax>" + x2 +
         "</xmax><ymax>" + y2 + "</ymax></bndbox></object>\n";
}

inline std::string voc_xml(int width, int height, const std::string& objects) {
  return "<annotation>\n<size><width>" + std::to_string(width) + "</width><height>" + std::to_string(height) +
         "</height><depth>3</depth></size>\n" + objects + "</annotation>\n";
}

class VocFolder {
 public:
  std::string root() const { return folder_.path().string(); }
  std::string operator/(const std::string& name) const { return folder_ / name; }

  // An image of one colour and its annotation.
  void add(const std::string& id, int width, int height, const std::string& objects,
           const std::string& extension = ".png") const {
    add_image(id + extension, width, height);
    write_text(folder_ / ("Annotations/" + id + ".xml"), voc_xml(width, height, objects));
  }
  void add_image(const std::string& file, int width, int height) const {
    std::filesystem::create_directories(folder_ / "JPEGImages");
    shrike::Image image = shrike::make_image(height, width);
    for (std::size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<std::uint8_t>(i * 7);
    shrike::write_image(folder_ / ("JPEGImages/" + file), image);
  }
  void list(const std::string& split, const std::string& ids) const {
    write_text(folder_ / ("ImageSets/Main/" + split + ".txt"), ids);
  }

 private:
  TemporaryFolder folder_;
};

// The folder of a data set that is not part of the project; nothing when absent.
inline std::optional<std::string> real_data(const std::string& name) {
  const std::string folder = shared_data_path(name);
  std::error_code error;
  if (std::filesystem::is_directory(folder, error)) return folder;
  return std::nullopt;
}
