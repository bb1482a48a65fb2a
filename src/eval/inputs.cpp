#include "inputs.hpp"

#include <algorithm>
#include <cstdio>

namespace shrike::eval {
namespace {

// Width and height in double precision, 0 for a box turned inside out.
double extent(float low, float high) { return std::max(0.0, static_cast<double>(high) - static_cast<double>(low)); }

bool finite(const Box& box) {
  return std::isfinite(box.x1) && std::isfinite(box.y1) && std::isfinite(box.x2) && std::isfinite(box.y2);
}

}  // namespace

std::vector<std::vector<ImageOfClass>> by_class(const char* who, const std::vector<std::vector<Object>>& truth,
                                                const std::vector<std::vector<Detection>>& found, int num_classes) {
  SHRIKE_CHECK(truth.size() == found.size(), who, ": annotations of ", truth.size(), " images and detections of ",
               found.size());
  SHRIKE_CHECK(num_classes > 0, who, ": num_classes ", num_classes, ", expected at least the background");
  std::vector<std::vector<ImageOfClass>> classes(static_cast<std::size_t>(num_classes));
  const auto entry = [&](std::size_t image, std::int32_t label) -> ImageOfClass& {
    auto& images = classes[static_cast<std::size_t>(label)];
    if (images.empty() || images.back().image != image) images.push_back({image, {}, {}});
    return images.back();
  };
  for (std::size_t image = 0; image < truth.size(); ++image) {
    for (const Object& object : truth[image]) {
      SHRIKE_CHECK(object.label > 0 && object.label < num_classes, who, ": image ", image, " has an object of label ",
                   object.label, ", expected 1 to ", num_classes - 1);
      SHRIKE_CHECK(finite(object.box), who, ": image ", image, " has an object whose box is not finite");
      entry(image, object.label).objects.push_back(&object);
    }
    for (const Detection& detection : found[image]) {
      SHRIKE_CHECK(detection.label > 0 && detection.label < num_classes, who, ": image ", image, " has a detection of label ",
                   detection.label, ", expected 1 to ", num_classes - 1);
      SHRIKE_CHECK(std::isfinite(detection.score), who, ": image ", image, " has a detection of score ", detection.score);
      SHRIKE_CHECK(finite(detection.box), who, ": image ", image, " has a detection whose box is not finite");
      entry(image, detection.label).detections.push_back(&detection);
    }
  }
  return classes;
}

Overlap overlap(const Box& object, const Box& detection) {
  const double width = extent(std::max(object.x1, detection.x1), std::min(object.x2, detection.x2));
  const double height = extent(std::max(object.y1, detection.y1), std::min(object.y2, detection.y2));
  return {width * height, extent(object.x1, object.x2) * extent(object.y1, object.y2),
          extent(detection.x1, detection.x2) * extent(detection.y1, detection.y2)};
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string blanks(widths[i] - row[i].size(), ' ');
      line += i == 0 ? row[i] + blanks : "  " + blanks + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string format_score(double value) {
  if (std::isnan(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", value);
  return text;
}

const std::string& class_name(const std::vector<std::string>& names, std::int32_t label) {
  SHRIKE_CHECK(label > 0 && static_cast<std::size_t>(label) <= names.size(), "label ", label, " has no name: ", names.size(),
               " names were given");
  return names[static_cast<std::size_t>(label) - 1];
}

}  // namespace shrike::eval
