// The PASCAL VOC format: a folder with JPEGImages, Annotations and ImageSets/Main (Everingham et al., "The PASCAL Visual Object
// Classes Challenge 2007 Development Kit").
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shrike/data/dataset.hpp"

namespace shrike {

struct VocOptions {
  std::string years;                     // "2007" or "2007+2012": read ROOT/VOC2007, ...; empty: ROOT itself is such a folder
  bool drop_bad_boxes = false;           // leave out and count boxes that are not boxes, instead of throwing
  bool check_images = true;              // compare each image file's size with its annotation's (opens every image file)
  std::size_t max_xml_bytes = 4u << 20;  // of one annotation
  int max_xml_depth = 64;                // of nested elements; VOC itself needs five
};

// What was read, and what was done to it.
struct VocReport {
  struct Class {
    std::string name;
    std::int64_t objects = 0, difficult = 0, images = 0;  // objects includes the difficult ones
  };
  std::int64_t images = 0, empty_images = 0, objects = 0, difficult = 0;
  std::int64_t clipped = 0;          // boxes that reached beyond their image
  std::vector<std::string> dropped;  // one line for each box left out, which names file, object and box
  std::vector<Class> classes;
};

// A table of a few lines: counts in total and for each class, clipped and dropped boxes.
std::string to_string(const VocReport& report);

// The 20 classes of PASCAL VOC in alphabetical order.
const std::vector<std::string>& voc_classes();

// Reads the images listed in ImageSets/Main/SPLIT.txt for each split in `splits` ("trainval", or several as "train+val").
//
// `root` is a folder like VOC2007, or a VOCdevkit folder that has just one of them, or several chosen by options.years. The
// image of an id is JPEGImages/ID.jpg, .jpeg or .png. Label i is classes[i - 1]; with no classes given, they are all names
// found, sorted. VOC's 1-based inclusive corners become x1 - 1, y1 - 1, x2, y2; corners may be fractions. Boxes are clipped to
// the image. Objects marked difficult are kept and flagged. Images without objects are kept.
//
// Throws Error, one line that names file, object and value, for: a missing folder, split, annotation or image; an empty split;
// an id that is listed twice or is not a plain file name; an annotation that is not well-formed, too large, too deep or has a
// DOCTYPE; classes that are not in `classes` (all of them, with counts); a size that is not the image file's; and, unless
// options.drop_bad_boxes, for boxes with corners that are missing, not numbers or not finite, without area, or outside the
// image.
Dataset read_voc(const std::string& root, const std::string& splits, const std::vector<std::string>& classes = {},
                 const VocOptions& options = {}, VocReport* report = nullptr);

// One <object> as written. Corners are VOC's: 1-based and inclusive.
struct VocObject {
  std::string name;
  double x1 = 0, y1 = 0, x2 = 0, y2 = 0;
  bool difficult = false;
  int number = 0;       // counting from 1 in the file
  std::string problem;  // why this is not a box, naming the corners as written; empty for a good one
};

struct VocAnnotation {
  int height = 0, width = 0;  // 0 when the file has no <size>
  std::vector<VocObject> objects;
};

// Parses the bytes of an annotation file; `name` is what errors call it. Throws Error as read_voc does, except for bad boxes,
// which carry their problem.
VocAnnotation parse_voc_annotation(std::string_view bytes, const std::string& name, const VocOptions& options = {});

}  // namespace shrike
