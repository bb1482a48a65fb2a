#include <algorithm>
#include <cstdio>

#include "inputs.hpp"
#include "shrike/eval/voc.hpp"

namespace shrike {
namespace {

template <class... Values> void append(std::string& text, const char* format, Values... values) {
  char line[128];
  std::snprintf(line, sizeof line, format, values...);
  text += line;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

std::string xml_text(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    escaped += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  }
  return escaped;
}

}  // namespace

std::string curves_csv(const VocAp& result, const std::vector<std::string>& names) {
  std::string text = "class,score,precision,recall\n";
  for (const VocClassAp& c : result.classes) {
    const std::string name = csv_field(eval::class_name(names, c.label));
    for (std::size_t i = 0; i < c.score.size(); ++i) {
      text += name;
      append(text, ",%.9g,%.6f,%.6f\n", static_cast<double>(c.score[i]), c.precision[i], c.recall[i]);
    }
  }
  return text;
}

std::string curves_svg(const VocAp& result, const std::vector<std::string>& names) {
  constexpr double side = 400, left = 50, top = 20, legend = 20;
  const auto counted = std::count_if(result.classes.begin(), result.classes.end(), [](auto& c) { return c.objects > 0; });
  const double height = std::max(top + side + 50, top + legend * static_cast<double>(counted + 1));
  std::string svg;
  append(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"700\" height=\"%.0f\"", height);
  svg += " font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  for (int i = 0; i <= 10; i += 2) {
    const double at = side * i / 10;
    append(svg, "<path d=\"M%.1f %.1fv%.1f", left + at, top, side);
    append(svg, "M%.1f %.1fh%.1f\" stroke=\"#ddd\"/>\n", left, top + at, side);
    append(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.1f</text>\n", left + at, top + side + 18, i / 10.0);
    append(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.1f</text>\n", left - 6, top + side - at + 4, i / 10.0);
  }
  append(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">recall</text>\n", left + side / 2, top + side + 38);
  append(svg, "<text transform=\"translate(14 %.1f) rotate(-90)\" text-anchor=\"middle\">precision</text>\n", top + side / 2);
  int number = 0;
  for (const VocClassAp& c : result.classes) {
    if (c.objects == 0) continue;
    char colour[32];  // hues a golden angle apart stay distinct for any number of classes
    std::snprintf(colour, sizeof colour, "hsl(%.0f,70%%,42%%)", std::fmod(137.5 * number, 360.0));
    svg += "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"" + std::string(colour) + "\" points=\"";
    for (std::size_t i = 0; i < c.recall.size(); ++i) {
      append(svg, "%.1f,%.1f ", left + side * c.recall[i], top + side * (1 - c.precision[i]));
    }
    svg += "\"/>\n";
    append(svg, "<text x=\"%.1f\" y=\"%.1f\" fill=\"%s\">", left + side + 20, top + legend * (number + 0.5), colour);
    svg += xml_text(eval::class_name(names, c.label)) + " " + eval::format_score(c.ap) + "</text>\n";
    ++number;
  }
  return svg + "</svg>\n";
}

}  // namespace shrike
