// One VOC annotation: XML by pugixml, behind checks that it lacks.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <pugixml.hpp>

#include "shrike/core/check.hpp"
#include "shrike/data/voc.hpp"

namespace shrike {
namespace {

// Corners further out than this are damage, not boxes that reach beyond the image: a JPEG has at most 65535 pixels a side.
constexpr double farthest_corner = 1e6;

std::int64_t line_of(std::string_view bytes, std::ptrdiff_t offset) {
  const auto end = static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(offset, 0, static_cast<std::ptrdiff_t>(bytes.size())));
  return 1 + std::count(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(end), '\n');
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view space = " \t\r\n";
  const auto first = text.find_first_not_of(space);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(space) - first + 1);
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// Text from a file made fit for a one-line message.
std::string shown(std::string_view text) {
  constexpr std::size_t longest = 40;
  std::string result;
  for (const char c : text.substr(0, longest)) {
    result += is_control(c) ? ' ' : c;
  }
  return text.size() > longest ? result + "..." : result;
}

// Throws if elements nest deeper than `max_depth`, before pugixml builds a tree that it would destroy recursively. Follows
// pugixml's reading of comments, CDATA, processing instructions and quotes, so that no part is seen by one and not by the
// other.
void check_structure(std::string_view bytes, const std::string& name, int max_depth) {
  SHRIKE_CHECK(bytes.find('\0') == std::string_view::npos, name, ": has a zero byte: expected XML in UTF-8");
  const auto skip = [&](std::size_t at, std::string_view until, const char* what) {
    const auto end = bytes.find(until, at);
    SHRIKE_CHECK(end != std::string_view::npos, name, ":", line_of(bytes, static_cast<std::ptrdiff_t>(at)), ": ends inside ",
                 what);
    return end + until.size();
  };
  std::int64_t depth = 0;
  for (std::size_t at = bytes.find('<'); at != std::string_view::npos; at = bytes.find('<', at)) {
    const auto rest = bytes.substr(at);
    if (rest.starts_with("<!--")) {
      at = skip(at + 4, "-->", "a comment");
    } else if (rest.starts_with("<![CDATA[")) {
      at = skip(at + 9, "]]>", "a CDATA section");
    } else if (rest.starts_with("<?")) {
      at = skip(at + 2, "?>", "a processing instruction");
    } else if (rest.starts_with("<!")) {
      fail(name, ":", line_of(bytes, static_cast<std::ptrdiff_t>(at)), ": '", shown(rest.substr(0, 12)),
           "': a DOCTYPE is not accepted in an annotation");
    } else if (rest.starts_with("</")) {
      --depth;
      at = skip(at + 2, ">", "a tag");
    } else {
      SHRIKE_CHECK(++depth <= max_depth, name, ":", line_of(bytes, static_cast<std::ptrdiff_t>(at)),
                   ": elements nest deeper than ", max_depth);
      std::size_t end = at + 1;
      for (; end < bytes.size() && bytes[end] != '>'; ++end) {
        if (bytes[end] != '"' && bytes[end] != '\'') continue;
        end = skip(end + 1, std::string_view(&bytes[end], 1), "a quoted value") - 1;
      }
      SHRIKE_CHECK(end < bytes.size(), name, ":", line_of(bytes, static_cast<std::ptrdiff_t>(at)), ": ends inside a tag");
      if (bytes[end - 1] == '/') --depth;
      at = end + 1;
    }
  }
}

std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// <width> or <height> of <size>.
int side(std::string_view bytes, pugi::xml_node size, const char* which, const std::string& name) {
  const pugi::xml_node node = size.child(which);
  const auto text = trimmed(node.text().get());
  const auto value = number(text);
  SHRIKE_CHECK(value && *value >= 1 && *value <= 65535 && *value == std::floor(*value), name, ":",
               line_of(bytes, (node ? node : size).offset_debug()), ": ", which, " is '", shown(text),
               "': expected 1 to 65535 pixels");
  return static_cast<int>(*value);
}

void read_box(pugi::xml_node box, VocObject& object) {
  static constexpr const char* corner_names[] = {"xmin", "ymin", "xmax", "ymax"};
  double* const corners[] = {&object.x1, &object.y1, &object.x2, &object.y2};
  std::string written, problem;
  for (int i = 0; i < 4; ++i) {
    const auto text = trimmed(box.child(corner_names[i]).text().get());
    const auto value = number(text);
    written += (i ? ", " : "") + shown(text);
    if (value) *corners[i] = *value;
    if (!problem.empty()) continue;
    if (!value) {
      problem = std::string(corner_names[i]) + (text.empty() ? " is missing" : " is not a number");
    } else if (!std::isfinite(*value)) {
      problem = std::string(corner_names[i]) + " is not finite";
    } else if (std::abs(*value) > farthest_corner) {
      problem = std::string(corner_names[i]) + " is too far out";
    }
  }
  if (problem.empty() && (object.x2 <= object.x1 || object.y2 <= object.y1)) {
    const bool inverted = object.x2 < object.x1 || object.y2 < object.y1;
    problem = std::string(inverted ? "is inverted" : "has no area") + ", expected xmin < xmax and ymin < ymax";
  }
  if (!problem.empty()) object.problem = "box (" + written + "): " + problem;
}

}  // namespace

VocAnnotation parse_voc_annotation(std::string_view bytes, const std::string& name, const VocOptions& options) {
  SHRIKE_CHECK(bytes.size() <= options.max_xml_bytes, name, ": has ", bytes.size(), " bytes: an annotation has at most ",
               options.max_xml_bytes);
  SHRIKE_CHECK(!trimmed(bytes).empty(), name, ": is empty: expected an <annotation>");
  check_structure(bytes, name, options.max_xml_depth);

  pugi::xml_document document;
  const auto status = document.load_buffer(bytes.data(), bytes.size(), pugi::parse_default, pugi::encoding_utf8);
  SHRIKE_CHECK(status, name, ":", line_of(bytes, status.offset), ": is not well-formed XML: ", status.description());
  const pugi::xml_node root = document.child("annotation");
  SHRIKE_CHECK(root, name, ": has no <annotation>, but <", shown(document.document_element().name()), ">");

  VocAnnotation annotation;
  if (const pugi::xml_node size = root.child("size")) {
    annotation.width = side(bytes, size, "width", name);
    annotation.height = side(bytes, size, "height", name);
  }
  std::ptrdiff_t counted = 0;  // objects come in the file's order, so lines are counted once
  std::int64_t line = 1;
  for (const pugi::xml_node node : root.children("object")) {
    const std::ptrdiff_t offset = std::clamp<std::ptrdiff_t>(node.offset_debug(), counted, std::ssize(bytes));
    line += std::count(bytes.begin() + counted, bytes.begin() + offset, '\n');
    counted = offset;
    VocObject& object = annotation.objects.emplace_back();
    object.number = static_cast<int>(annotation.objects.size());
    object.name = trimmed(node.child("name").text().get());
    const auto where = [&] { return message(name, ":", line, ": object ", object.number); };
    SHRIKE_CHECK(!object.name.empty(), where(), " has no name");
    SHRIKE_CHECK(std::none_of(object.name.begin(), object.name.end(), is_control), where(), " has the name '",
                 shown(object.name), "' with control characters");
    const auto difficult = trimmed(node.child("difficult").text().get());
    SHRIKE_CHECK(difficult.empty() || difficult == "0" || difficult == "1", where(), " (", shown(object.name),
                 "): difficult is '", shown(difficult), "': expected 0 or 1");
    object.difficult = difficult == "1";
    read_box(node.child("bndbox"), object);
    if (!object.problem.empty()) object.problem = message(where(), " (", shown(object.name), "): ", object.problem);
  }
  return annotation;
}

}  // namespace shrike
