// What bench_int8 --evaluate ends with: float and int8 in one small table, with what they find, their bytes and their time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "apps/evaluate.hpp"

namespace shrike::apps {

struct Summary {
  std::string name;
  Evaluation evaluation;
  std::uintmax_t bytes = 0;  // of the weights
  double ms = 0;             // of one detection
};

inline void print_summary(const Summary& a, const Summary& b) {
  std::printf("\n%-24s %12s %12s\n", "on the test set", a.name.c_str(), b.name.c_str());
  const std::pair<const char*, const char*> figures[] = {
      {"map_voc07", "mAP, VOC07"}, {"map_area", "mAP, area"}, {"coco_ap", "COCO AP"}};
  for (const auto& [key, title] : figures) {
    const double before = a.evaluation.value(key), after = b.evaluation.value(key);
    std::printf("%-24s %12.4f %12.4f  %+8.4f\n", title, before, after, after - before);
  }
  const auto mb = [](std::uintmax_t bytes) { return 1e-6 * static_cast<double>(bytes); };
  std::printf("%-24s %12.2f %12.2f  %8.3f\n", "weights, MB", mb(a.bytes), mb(b.bytes), mb(b.bytes) / mb(a.bytes));
  std::printf("%-24s %12.2f %12.2f  %7.2fx\n", "one image, ms", a.ms, b.ms, a.ms / b.ms);
}

inline void write_summary(JsonWriter& json, const Summary& summary) {
  json.key(summary.name).begin_object();
  for (const auto& [key, value] : summary.evaluation.values) json.field(key, value);
  json.field("weight_bytes", static_cast<std::int64_t>(summary.bytes)).field("median_ms", summary.ms).end_object();
}

}  // namespace shrike::apps
