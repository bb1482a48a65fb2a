#include "shrike/ops/nms.hpp"

#include <bit>

#include "shrike/core/threads.hpp"

// Every device rounds each operation of the IoU by itself.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace shrike::kernels {
namespace {

// A key whose ascending order is that of descending scores, NaN last.
std::uint32_t sort_key(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score == 0.0f ? 0.0f : score);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;
  return bits >> 31 ? bits : ~bits & 0x7fffffffu;
}

struct Keyed {
  std::uint32_t key;
  std::int32_t index;
};

// Stable radix sort by key, 11 bits at a time.
void radix_sort(std::vector<Keyed>& values) {
  constexpr std::size_t digits = 1 << 11;
  std::vector<std::uint32_t> starts(3 * digits);
  for (const Keyed& value : values) {
    for (unsigned pass = 0; pass < 3; ++pass) ++starts[pass * digits + (value.key >> 11 * pass & (digits - 1))];
  }
  std::vector<Keyed> other(values.size());
  for (unsigned pass = 0; pass < 3; ++pass) {
    std::uint32_t* start = starts.data() + pass * digits;
    std::uint32_t sum = 0;
    for (std::size_t digit = 0; digit < digits; ++digit) sum += std::exchange(start[digit], sum);
    for (const Keyed& value : values) other[start[value.key >> 11 * pass & (digits - 1)]++] = value;
    values.swap(other);
  }
}

}  // namespace

// Scores whose upper bits put them behind the k-th are dropped before sorting.
void top_k_forward(Cpu, std::int64_t n, std::int64_t k, const float* scores, std::int32_t* index) {
  if (k == 0) return;
  constexpr unsigned shift = 16;
  std::uint32_t limit = 0xffffffffu >> shift;
  if (k < n) {
    std::vector<std::int64_t> histogram(std::size_t{1} << (32 - shift));
    for (std::int64_t i = 0; i < n; ++i) ++histogram[sort_key(scores[i]) >> shift];
    limit = 0;
    for (std::int64_t before = histogram[0]; before < k; before += histogram[limit]) ++limit;
  }
  std::vector<Keyed> candidates;
  candidates.reserve(static_cast<std::size_t>(k < n ? k + k / 4 : n));
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t key = sort_key(scores[i]);
    if (key >> shift <= limit) candidates.push_back({key, static_cast<std::int32_t>(i)});
  }
  radix_sort(candidates);
  for (std::int64_t i = 0; i < k; ++i) index[i] = candidates[static_cast<std::size_t>(i)].index;
}

namespace {

constexpr std::size_t lanes = 64;  // kept boxes are compared this many at a time

struct Corners {
  float x1, y1, x2, y2, area;
};

Corners corners(const float* box) { return {box[0], box[1], box[2], box[3], (box[2] - box[0]) * (box[3] - box[1])}; }

// The boxes kept so far, coordinate by coordinate, in blocks padded with empty boxes, which overlap nothing.
class Kept {
 public:
  std::size_t size() const { return size_; }

  void add(const Corners& box) {
    if (size_ % lanes == 0) blocks_.emplace_back();
    Block& block = blocks_.back();
    const std::size_t i = size_++ % lanes;
    block.x1[i] = box.x1;
    block.y1[i] = box.y1;
    block.x2[i] = box.x2;
    block.y2[i] = box.y2;
    block.area[i] = box.area;
  }

  // Whether the IoU of `box` with any box from number `first` on is > threshold >= 0.
  bool suppress(const Corners& box, std::size_t first, float threshold) const {
    for (std::size_t b = first / lanes; b < blocks_.size(); ++b) {
      if (near(blocks_[b], box, threshold * 0.999f) && exact(blocks_[b], box, threshold)) return true;
    }
    return false;
  }

 private:
  struct alignas(64) Block {
    float x1[lanes] = {}, y1[lanes] = {}, x2[lanes] = {}, y2[lanes] = {}, area[lanes] = {};
  };

  static float intersection(const Block& block, std::size_t i, const Corners& box) {
    const float x1 = block.x1[i] > box.x1 ? block.x1[i] : box.x1;
    const float y1 = block.y1[i] > box.y1 ? block.y1[i] : box.y1;
    const float x2 = block.x2[i] < box.x2 ? block.x2[i] : box.x2;
    const float y2 = block.y2[i] < box.y2 ? block.y2[i] : box.y2;
    const float width = x2 - x1 > 0.0f ? x2 - x1 : 0.0f;
    const float height = y2 - y1 > 0.0f ? y2 - y1 : 0.0f;
    return width * height;
  }

  // True if any may be above the threshold, given one a little lower: saves the division.
  static bool near(const Block& block, const Corners& box, float lower) {
    std::int32_t any = 0;
    for (std::size_t i = 0; i < lanes; ++i) {
      const float inter = intersection(block, i, box);
      any |= inter > lower * (block.area[i] + box.area - inter) ? 1 : 0;
    }
    return any != 0;
  }

  static bool exact(const Block& block, const Corners& box, float threshold) {
    std::int32_t any = 0;
    for (std::size_t i = 0; i < lanes; ++i) {
      const float inter = intersection(block, i, box);
      any |= inter / (block.area[i] + box.area - inter) > threshold ? 1 : 0;
    }
    return any != 0;
  }

  std::vector<Block> blocks_;
  std::size_t size_ = 0;
};

// Greedy suppression among boxes[order[p]] for p in places; sets kept[p]. Candidates are taken in batches: first each is
// compared, in parallel, with all boxes kept before the batch, then the survivors one by one with those kept in it.
void suppress(const NmsSizes& s, const float* boxes, const std::int32_t* order, const std::int32_t* places, std::size_t n,
              std::uint8_t* kept) {
  constexpr std::size_t batch = 256;
  Kept chosen;
  Corners candidates[batch];
  bool out[batch];
  for (std::size_t first = 0; first < n; first += batch) {
    const std::size_t count = std::min(batch, n - first);
    const auto grain = static_cast<std::int64_t>((1 << 16) / (chosen.size() + 1));  // comparisons of a chunk
    parallel_for(static_cast<std::int64_t>(count), grain, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        candidates[i] = corners(boxes + std::int64_t{4} * order[places[first + i]]);
        out[i] = chosen.suppress(candidates[i], 0, s.threshold);
      }
    });
    const std::size_t before = chosen.size();
    for (std::size_t i = 0; i < count; ++i) {
      if (out[i] || (chosen.size() > before && chosen.suppress(candidates[i], before, s.threshold))) continue;
      if (static_cast<std::int64_t>(chosen.size()) == s.max_keep) return;
      kept[places[first + i]] = 1;
      chosen.add(candidates[i]);
    }
  }
}

}  // namespace

void nms_forward(Cpu, const NmsSizes& s, const float* boxes, const std::int32_t* order, const std::int32_t* labels,
                 std::int32_t* keep, std::int32_t* count) {
  std::vector<std::int32_t> places;  // in order, grouped by label
  for (std::int64_t p = 0; p < s.candidates; ++p) {
    if (order[p] >= 0) places.push_back(static_cast<std::int32_t>(p));
  }
  if (labels != nullptr) {
    std::stable_sort(places.begin(), places.end(),
                     [&](std::int32_t a, std::int32_t b) { return labels[order[a]] < labels[order[b]]; });
  }
  std::vector<std::uint8_t> kept(static_cast<std::size_t>(s.candidates));
  for (std::size_t begin = 0; begin < places.size();) {
    std::size_t end = places.size();
    if (labels != nullptr) {
      const std::int32_t label = labels[order[places[begin]]];
      end = begin + 1;
      while (end < places.size() && labels[order[places[end]]] == label) ++end;
    }
    suppress(s, boxes, order, places.data() + begin, end - begin, kept.data());
    begin = end;
  }
  std::int32_t found = 0;
  for (std::int64_t p = 0; p < s.candidates && found < s.max_keep; ++p) {
    if (kept[static_cast<std::size_t>(p)] != 0) keep[found++] = order[p];
  }
  std::fill(keep + found, keep + s.max_keep, -1);
  *count = found;
}

}  // namespace shrike::kernels
