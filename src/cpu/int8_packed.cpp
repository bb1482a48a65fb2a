#include "int8_packed.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "int8_safe.hpp"
#include "int8_winograd.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::int8 {
namespace {

// One panel in bytes, [step, column, 4], or words, [step, column, 2]; `weight` is the group's.
template <class T> Panel pack_panel(const Packed& packed, const std::int8_t* weight, std::int64_t panel) {
  const Packing& how = packed.how;
  constexpr std::int64_t n = 4 / sizeof(T),
                         block = 16;  // steps at a time, so that what is written stays in the first-level cache
  const std::int64_t width = how.isa->panel, depth = how.depth(), steps = packed.steps();
  const std::int64_t used = std::min<std::int64_t>(width, how.columns() - panel * width);
  Panel result{Scratch(static_cast<std::size_t>(steps * width * 4)), {}, steps};
  auto* const to = reinterpret_cast<T*>(result.weights.data());
  if (used < width || depth < steps * n) std::fill_n(to, steps * width * n, T{0});
  for (std::int64_t first = 0; first < steps; first += block) {
    const std::int64_t last = std::min(first + block, steps) * n;
    for (std::int64_t column = 0; column < used; ++column) {
      const std::int8_t* from = weight + (panel * width + column) * depth;
      for (std::int64_t i = first * n; i < std::min(last, depth); ++i) to[(i / n * width + column) * n + i % n] = from[i];
    }
  }
  return result;
}

// Modulo 2^32: sums of x + 128 begin at -128 * sum w, those by pairs of steps at minus the products of the weights among
// themselves.
std::int32_t start_of(const Packed& packed, const std::int8_t* weight) {
  const std::int64_t depth = packed.how.depth();
  std::int32_t sum = 0;
  if (packed.form == Form::words) {
    for (std::int64_t i = 0; i + 2 < depth; i += 4) {
      sum -= weight[i] * weight[i + 2];
      if (i + 3 < depth) sum -= weight[i + 1] * weight[i + 3];
    }
  } else if (packed.shifted()) {
    for (std::int64_t i = 0; i < depth; ++i) sum += weight[i];
    sum = static_cast<std::int32_t>(-128u * static_cast<std::uint32_t>(sum));
  }
  return sum;
}

// Panels in packed.form. False when safe bytes would take so many steps that words are faster.
bool pack_panels(Packed& packed, const std::int8_t* weight) {
  constexpr double worthwhile = 1.25;
  const Packing& how = packed.how;
  const std::int64_t panels = how.panels(), width = how.isa->panel, steps = packed.steps();
  packed.panels = std::vector<Panel>(static_cast<std::size_t>(how.groups * panels));
  std::atomic<bool> good = true;
  parallel_for(how.groups * panels, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end && good; ++i) {
      const std::int8_t* const of_group = weight + i / panels * how.columns() * how.depth();
      Panel& to = packed.panels[static_cast<std::size_t>(i)];
      if (packed.form == Form::words) {
        to = pack_panel<std::int16_t>(packed, of_group, i % panels);
        continue;
      }
      to = pack_panel<std::int8_t>(packed, of_group, i % panels);
      if (packed.form != Form::safe_bytes) continue;
      const auto most = std::max<std::int64_t>(static_cast<std::int64_t>(worthwhile * static_cast<double>(steps)), 2);
      auto in_order = safe_panel(steps, width, reinterpret_cast<const std::int8_t*>(to.weights.data()), most);
      if (in_order) {
        to = std::move(*in_order);
      } else {
        good = false;
      }
    }
  });
  return good;
}

Packed pack(const Packing& how, const std::int8_t* weight) {
  if (how.tiles && winograd::exact(how, weight)) return winograd::pack(how, weight);
  const std::int64_t panels = how.panels(), width = how.isa->panel, columns = how.columns();
  Packed result{how, 0,  how.isa->multiply_bytes != nullptr ? Form::bytes : Form::safe_bytes,
                {},  {}, Scratch(static_cast<std::size_t>(how.groups * panels * width * 4))};
  if (!pack_panels(result, weight)) {
    result.form = Form::words;
    pack_panels(result, weight);
  }
  auto* const starts = reinterpret_cast<std::int32_t*>(result.starts.data());
  parallel_for(how.groups * panels, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int8_t* const of_group = weight + i / panels * columns * how.depth();
      for (std::int64_t column = 0; column < width; ++column) {
        const std::int64_t k = i % panels * width + column;
        starts[i * width + column] = k < columns ? start_of(result, of_group + k * how.depth()) : 0;
      }
    }
  });
  return result;
}

}  // namespace

std::shared_ptr<const Packed> packed_weights(const Packing& how, const kernels::QuantizedOperands& o) {
  if (o.beside_weight == nullptr) return std::make_shared<const Packed>(pack(how, o.weight));
  const std::uint64_t version = o.beside_weight->version();
  auto kept = std::static_pointer_cast<const Packed>(o.beside_weight->get());
  if (kept != nullptr && kept->version == version && kept->how == how) return kept;
  kept.reset();
  o.beside_weight->set(nullptr);  // before the new ones need memory
  Packed made = pack(how, o.weight);
  made.version = version;
  kept = std::make_shared<const Packed>(std::move(made));
  o.beside_weight->set(kept);
  return kept;
}

}  // namespace shrike::int8
