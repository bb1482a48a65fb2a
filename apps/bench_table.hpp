// How bench_int8 shows what it measured: tables, and JSON.
#pragma once

#include <algorithm>
#include <cstdio>

#include "apps/bench_layers.hpp"
#include "shrike/io/json.hpp"

namespace shrike::apps {

// One of the detectors that are compared, as it is shown.
struct Column {
  std::string name;                                 // "float"; on a device "fp32", "tf32" and "fp16"; "int8"
  std::vector<std::pair<std::string, Times>> rows;  // the whole and its parts, the same for all
  std::vector<LayerTime> layers;
  double ceiling = 0;        // operations a second of its kind of layers; 0 where it was not measured
  double float_ceiling = 0;  // the same for layers that stayed float

  double share(const LayerTime& layer) const {
    const bool narrow = layer.op.starts_with("quantized_") || layer.op.starts_with("dynamic_") || layer.op.starts_with("half_");
    const double most = narrow ? ceiling : float_ceiling;
    return most > 0 ? layer.rate() / most : 0;
  }
};

inline void print_head(const std::string& first, const std::vector<Column>& columns) {
  std::printf("%-36s", first.c_str());
  for (const Column& column : columns) std::printf(" %9s %9s", column.name.c_str(), "p99");
  for (std::size_t i = 0; i + 1 < columns.size(); ++i)
    std::printf("  %5s/%s", columns[i].name.c_str(), columns.back().name.c_str());
  std::printf("\n");
}

// One row; who does not have it gets dashes.
inline void print_row(const std::string& name, const std::vector<const Times*>& times) {
  std::printf("%-36s", name.c_str());
  for (const Times* t : times) {
    if (t == nullptr) {
      std::printf(" %9s %9s", "-", "-");
    } else {
      std::printf(" %9.2f %9.2f", t->median(), t->p99());
    }
  }
  for (std::size_t i = 0; i + 1 < times.size(); ++i) {
    if (times[i] == nullptr || times.back() == nullptr || times.back()->median() <= 0) continue;
    std::printf("  %9.2fx", times[i]->median() / times.back()->median());
  }
  std::printf("\n");
}

inline const LayerTime* find_layer(const Column& column, const std::string& name) {
  const auto found =
      std::find_if(column.layers.begin(), column.layers.end(), [&](const LayerTime& l) { return l.name == name; });
  return found == column.layers.end() ? nullptr : &*found;
}

// Names of all layers, in order; what makes and unmakes codes and halves is in one detector alone.
inline std::vector<std::string> layer_names(const std::vector<Column>& columns) {
  std::vector<std::string> names;
  for (const Column& column : columns) {
    auto at = names.begin();
    for (const LayerTime& layer : column.layers) {
      const auto found = std::find(names.begin(), names.end(), layer.name);
      at = found != names.end() ? found + 1 : names.insert(at, layer.name) + 1;
    }
  }
  return names;
}

inline void print_tables(const std::vector<Column>& columns) {
  print_head("ms, median and p99", columns);
  for (std::size_t row = 0; row < columns[0].rows.size(); ++row) {
    std::vector<const Times*> times;
    for (const Column& column : columns) times.push_back(&column.rows[row].second);
    print_row(columns[0].rows[row].first, times);
  }
  std::printf("\n");
  print_head("layer by layer", columns);
  const auto names = layer_names(columns);
  for (const std::string& name : names) {
    std::vector<const Times*> times;
    for (const Column& column : columns) {
      const LayerTime* layer = find_layer(column, name);
      times.push_back(layer != nullptr ? &layer->times : nullptr);
    }
    print_row(name, times);
  }
  for (const Column& column : columns) {
    std::printf("\n%-36s %-28s %8s %9s %8s\n", (column.name + ": kernels").c_str(), "kernel", "GOP", "GOP/s", "ceiling");
    for (const LayerTime& layer : column.layers) {
      if (layer.operations == 0) continue;
      std::printf("%-36s %-28s %8.2f %9.0f", layer.name.c_str(), layer.kernel.c_str(), 1e-9 * layer.operations,
                  1e-9 * layer.rate());
      column.ceiling > 0 ? std::printf(" %7.0f%%\n", 100 * column.share(layer)) : std::printf(" %8s\n", "-");
    }
  }
  std::printf(
      "\nGOP: operations of the plain algorithm, two to a multiplication. Winograd's 4x4 tiles need a quarter of its\n"
      "multiplications, so their layers can pass 100%% of the ceiling");
  for (const Column& column : columns) {
    if (column.ceiling > 0) std::printf(", %.0f GOP/s for %s", 1e-9 * column.ceiling, column.name.c_str());
  }
  std::printf(columns[0].ceiling > 0 ? " here:\nmultiplications and additions on registers alone, all threads.\n" : ".\n");
}

inline void write_times(JsonWriter& json, const Times& times) {
  json.field("median_ms", times.median()).field("p99_ms", times.p99());
}

inline void write_column(JsonWriter& json, const Column& column) {
  json.key(column.name).begin_object();
  for (const auto& [name, times] : column.rows) {
    const std::size_t start = name.find_first_not_of(' ');
    json.key(name.substr(start)).begin_object();
    write_times(json, times);
    json.end_object();
  }
  if (column.ceiling > 0) json.field("ceiling_gops", 1e-9 * column.ceiling);
  json.key("layers").begin_array();
  for (const LayerTime& layer : column.layers) {
    json.begin_object().field("name", layer.name).field("op", layer.op);
    write_times(json, layer.times);
    if (layer.operations > 0) {
      json.field("kernel", layer.kernel).field("gop", 1e-9 * layer.operations).field("gops", 1e-9 * layer.rate());
      if (column.ceiling > 0) json.field("share_of_ceiling", column.share(layer));
    }
    json.end_object();
  }
  json.end_array().end_object();
}

}  // namespace shrike::apps
