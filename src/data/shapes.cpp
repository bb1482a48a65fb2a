// The data set `shapes` on disk.
#include "shrike/data/shapes.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "shrike/core/check.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/io/file.hpp"

namespace shrike {
namespace {

namespace fs = std::filesystem;

constexpr int format = 1;  // counts up when the same options would give other pictures or files

std::string describe(const ShapesOptions& options) {
  return message("shapes format=", format, " train=", options.train, " test=", options.test, " width=", options.width,
                 " height=", options.height, " max_objects=", options.max_objects, " seed=", options.seed, "\n");
}

std::string file_id(int number) {
  std::string digits = std::to_string(number);
  return digits.insert(0, digits.size() < 6 ? 6 - digits.size() : 0, '0');
}

std::string annotation(const ShapesPicture& picture, const std::string& id) {
  std::ostringstream xml;
  xml << "<annotation>\n  <folder>shapes</folder>\n  <filename>" << id << ".jpg</filename>\n  <size><width>"
      << picture.image.width << "</width><height>" << picture.image.height
      << "</height><depth>3</depth></size>\n  <segmented>0</segmented>\n";
  for (const ShapesPicture::Shape& shape : picture.shapes) {
    const Box& box = shape.object.box;
    xml << "  <object>\n    <name>" << shape_classes()[static_cast<std::size_t>(shape.object.label - 1)]
        << "</name>\n    <pose>Unspecified</pose>\n    <truncated>" << shape.truncated << "</truncated>\n    <occluded>"
        << shape.occluded << "</occluded>\n    <difficult>" << shape.object.difficult << "</difficult>\n    <bndbox><xmin>"
        << box.x1 + 1 << "</xmin><ymin>" << box.y1 + 1 << "</ymin><xmax>" << box.x2 << "</xmax><ymax>" << box.y2
        << "</ymax></bndbox>\n  </object>\n";
  }
  xml << "</annotation>\n";
  return xml.str();
}

// Without a sync for each of a thousand files: until the last one says that all are there, none counts.
void write(const fs::path& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  SHRIKE_CHECK(out, path.string(), ": cannot be written; is the disk full?");
}

// Draws and writes images first..first + count - 1, whose pictures are numbered from `index`, in parallel.
void write_images(const fs::path& folder, const ShapesOptions& options, int first, int count, std::uint64_t index) {
  parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const ShapesPicture picture = draw_shapes(options, index + static_cast<std::uint64_t>(i));
      const std::string id = file_id(first + static_cast<int>(i));
      write(folder / "JPEGImages" / (id + ".jpg"), encode_jpeg(picture.image, 92));
      write(folder / "Annotations" / (id + ".xml"), annotation(picture, id));
    }
  });
}

void write_list(const fs::path& path, int first, int count) {
  std::string ids;
  for (int i = 0; i < count; ++i) ids += file_id(first + i) + "\n";
  write(path, ids);
}

// Whether there is nothing, or an empty folder, or one whose first file was never finished.
bool is_free(const fs::path& root) {
  if (!fs::exists(root)) return true;
  if (!fs::is_directory(root)) return false;
  return std::all_of(fs::directory_iterator(root), fs::directory_iterator(),
                     [](const fs::directory_entry& entry) { return entry.path().filename() == "shapes.txt.tmp"; });
}

}  // namespace

bool write_shapes(const std::string& folder, const ShapesOptions& options) {
  SHRIKE_CHECK(options.train >= 1 && options.test >= 1 && options.train <= 400'000 && options.test <= 400'000, "shapes with ",
               options.train, " and ", options.test, " images: expected 1 to 400000 each");
  draw_shapes(options, 0);  // throws for options that it cannot draw, before anything is touched
  const fs::path root = folder;
  const fs::path marker = root / "shapes.txt";
  const std::string wanted = describe(options);
  try {
    const bool ours = fs::exists(marker);
    if (ours && read_file(marker.string(), 4096) == wanted) return false;
    SHRIKE_CHECK(ours || is_free(root), folder,
                 ": is not empty and has no shapes.txt: not overwritten with the data set shapes");
    fs::create_directories(root);
    write_file_atomically(marker.string(), "unfinished\n");
    for (const char* part : {"JPEGImages", "Annotations", "ImageSets"}) fs::remove_all(root / part);
    for (const char* part : {"JPEGImages", "Annotations", "ImageSets/Main"}) fs::create_directories(root / part);
    // The test set is the same whatever the size of the training set.
    write_images(root, options, 1, options.train, 0);
    write_images(root, options, options.train + 1, options.test, std::uint64_t{1} << 32);
    write_list(root / "ImageSets/Main/trainval.txt", 1, options.train);
    write_list(root / "ImageSets/Main/test.txt", options.train + 1, options.test);
    write_file_atomically(marker.string(), wanted);
  } catch (const fs::filesystem_error& error) {
    fail(folder, ": ", error.code().message(), " (", error.path1().string(), ")");
  }
  return true;
}

}  // namespace shrike
