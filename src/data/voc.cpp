// VOC folders: which files belong to a split, and from annotations to samples.
#include "shrike/data/voc.hpp"

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <map>
#include <set>
#include <unordered_map>

#include "shrike/core/check.hpp"
#include "shrike/data/image_size.hpp"
#include "shrike/io/file.hpp"
#include "voc_files.hpp"

namespace shrike {
namespace {

namespace fs = std::filesystem;

// Classes by name. Without a list, all are accepted and get their numbers when all are known.
class Classes {
 public:
  explicit Classes(const std::vector<std::string>& given) : open_(given.empty()), names_(given) {
    for (const std::string& name : given) {
      SHRIKE_CHECK(!name.empty(), "a class has an empty name");
      SHRIKE_CHECK(labels_.emplace(name, static_cast<int>(labels_.size()) + 1).second, "class '", name, "' is listed twice");
    }
  }

  // A provisional label while classes are being collected; 0 for a class that is not in the list, which is remembered.
  int label(const std::string& name, const std::string& path) {
    if (const auto found = labels_.find(name); found != labels_.end()) return found->second;
    if (open_) {
      names_.push_back(name);
      return labels_.emplace(name, static_cast<int>(labels_.size()) + 1).first->second;
    }
    Unknown& unknown = unknown_.try_emplace(name, Unknown{path, 0}).first->second;
    ++unknown.objects;
    return 0;
  }

  // Throws if there were unknown classes; sorts collected ones and renumbers the objects.
  void finish(Dataset& dataset) {
    if (!unknown_.empty()) {
      std::string list;
      for (const auto& [name, unknown] : unknown_) {
        list += message(list.empty() ? "" : ", ", "'", name, "' (", unknown.objects,
                        unknown.objects == 1 ? " object" : " objects", ", first in ", unknown.path, ")");
      }
      fail(dataset.root, ": classes that are not in the list: ", list, "; expected: ", voc::joined(names_));
    }
    if (open_) {
      std::sort(names_.begin(), names_.end());
      std::vector<int> renumbered(names_.size() + 1);
      for (std::size_t i = 0; i < names_.size(); ++i) {
        renumbered[static_cast<std::size_t>(labels_.at(names_[i]))] = static_cast<int>(i) + 1;
      }
      for (Sample& sample : dataset.samples) {
        for (Object& object : sample.objects) object.label = renumbered[static_cast<std::size_t>(object.label)];
      }
    }
    dataset.classes = names_;
  }

 private:
  struct Unknown {
    std::string path;
    std::int64_t objects;
  };
  bool open_;
  std::vector<std::string> names_;
  std::map<std::string, int> labels_;
  std::map<std::string, Unknown> unknown_;
};

// From an object as written to one with 0-based continuous corners inside the image, or its problem.
std::string convert(const VocObject& written, const Sample& sample, Object& object, bool& clipped) {
  if (!written.problem.empty()) return written.problem;
  const auto inside = [&](double value, int side) {
    const double result = std::clamp<double>(value, 0.0, side);
    clipped = clipped || result != value;
    return static_cast<float>(result);
  };
  object.box = {inside(written.x1 - 1, sample.width), inside(written.y1 - 1, sample.height), inside(written.x2, sample.width),
                inside(written.y2, sample.height)};
  object.difficult = written.difficult;
  if (object.box.x1 < object.box.x2 && object.box.y1 < object.box.y2) return {};
  return message("object ", written.number, " (", written.name, "): box (", written.x1, ", ", written.y1, ", ", written.x2,
                 ", ", written.y2, ") lies outside the image of ", sample.width, "x", sample.height, " pixels");
}

Sample read_sample(const fs::path& folder, const voc::ImageFiles& images, const std::string& id, const VocOptions& options,
                   Classes& classes, VocReport& report) {
  Sample sample;
  sample.id = id;
  sample.image_path = images.find(id);
  const std::string path = (folder / "Annotations" / (id + ".xml")).string();
  std::error_code error;
  SHRIKE_CHECK(fs::exists(path, error), path, ": there is no such annotation");
  const VocAnnotation annotation = parse_voc_annotation(read_file(path, options.max_xml_bytes), path, options);

  sample.height = annotation.height;
  sample.width = annotation.width;
  if (options.check_images || annotation.height == 0) {
    const ImageSize size = read_image_size(sample.image_path);
    SHRIKE_CHECK(annotation.height == 0 || size == (ImageSize{annotation.height, annotation.width}), path, ": the image is ",
                 annotation.width, "x", annotation.height, " pixels, but ", sample.image_path, " has ", size.width, "x",
                 size.height);
    sample.height = size.height;
    sample.width = size.width;
  }
  for (const VocObject& written : annotation.objects) {
    Object object;
    bool clipped = false;
    object.label = classes.label(written.name, path);
    std::string problem = convert(written, sample, object, clipped);
    if (problem.empty()) {
      report.clipped += clipped;
      sample.objects.push_back(object);
      continue;
    }
    if (!problem.starts_with(path)) problem = path + ": " + problem;
    SHRIKE_CHECK(options.drop_bad_boxes, problem);
    report.dropped.push_back(std::move(problem));
  }
  return sample;
}

void count(const Dataset& dataset, VocReport& report) {
  report.images = static_cast<std::int64_t>(dataset.samples.size());
  for (const std::string& name : dataset.classes) report.classes.push_back({name, 0, 0, 0});
  for (const Sample& sample : dataset.samples) {
    std::set<int> seen;
    report.empty_images += sample.objects.empty();
    for (const Object& object : sample.objects) {
      VocReport::Class& of = report.classes[static_cast<std::size_t>(object.label - 1)];
      ++report.objects;
      ++of.objects;
      report.difficult += object.difficult;
      of.difficult += object.difficult;
      of.images += seen.insert(object.label).second;
    }
  }
}

}  // namespace

const std::vector<std::string>& voc_classes() {
  static const std::vector<std::string> names = {
      "aeroplane",   "bicycle", "bird",  "boat",      "bottle", "bus",         "car",   "cat",  "chair", "cow",
      "diningtable", "dog",     "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"};
  return names;
}

Dataset read_voc(const std::string& root, const std::string& splits, const std::vector<std::string>& classes,
                 const VocOptions& options, VocReport* report) {
  Dataset dataset;
  dataset.root = root;
  VocReport counts;
  Classes known(classes);
  const std::vector<std::string> names = voc::parts(splits, '+');
  SHRIKE_CHECK(!names.empty(), root, ": no split was named");
  std::unordered_map<std::string, std::string> seen;  // id -> where it is listed
  for (const fs::path& folder : voc::folders(root, options.years)) {
    const voc::ImageFiles images(folder);
    for (const std::string& split : names) {
      const std::string list = voc::split_path(folder, split);
      for (const std::string& id : voc::read_split(folder, split)) {
        const auto [first, fresh] = seen.emplace(id, list);
        SHRIKE_CHECK(fresh, list, ": image id '", id, "' is listed twice",
                     first->second == list ? "" : ", before in " + first->second);
        dataset.samples.push_back(read_sample(folder, images, id, options, known, counts));
      }
    }
  }
  known.finish(dataset);
  if (report != nullptr) {
    count(dataset, counts);
    *report = std::move(counts);
  }
  return dataset;
}

std::string to_string(const VocReport& report) {
  constexpr std::size_t most_lines = 5;
  std::ostringstream out;
  out << report.images << " images (" << report.empty_images << " without objects), " << report.objects << " objects ("
      << report.difficult << " difficult)\n";
  std::size_t width = 5;
  for (const VocReport::Class& of : report.classes) width = std::max(width, of.name.size());
  out << "  " << std::left << std::setw(static_cast<int>(width)) << "class" << std::right << "  objects  difficult  images\n";
  for (const VocReport::Class& of : report.classes) {
    out << "  " << std::left << std::setw(static_cast<int>(width)) << of.name << std::right << std::setw(9) << of.objects
        << std::setw(11) << of.difficult << std::setw(8) << of.images << '\n';
  }
  if (report.clipped > 0) out << report.clipped << (report.clipped == 1 ? " box" : " boxes") << " clipped to the image\n";
  if (!report.dropped.empty()) {
    out << report.dropped.size() << (report.dropped.size() == 1 ? " bad box" : " bad boxes") << " left out:\n";
    for (std::size_t i = 0; i < std::min(most_lines, report.dropped.size()); ++i) out << "  " << report.dropped[i] << '\n';
    if (report.dropped.size() > most_lines) out << "  and " << report.dropped.size() - most_lines << " more\n";
  }
  return out.str();
}

}  // namespace shrike
