#include "shrike/core/threads.hpp"
#include "shrike/detection/boxes.hpp"

namespace shrike::kernels {
namespace {

constexpr std::int64_t grain = 1 << 11;

}  // namespace

void encode_boxes(Cpu, std::int64_t n, BoxWeights weights, const float* boxes, const float* references, float* deltas) {
  parallel_for(n, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const BoxDelta delta = encode_box(load_box(boxes + 4 * i), load_box(references + 4 * i), weights);
      store_box({delta.x, delta.y, delta.w, delta.h}, deltas + 4 * i);
    }
  });
}

void decode_boxes(Cpu, DecodeSizes sizes, const float* deltas, const float* references, float* boxes) {
  const std::int64_t classes = sizes.classes;
  parallel_for(sizes.boxes * classes, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* d = deltas + 4 * i;
      store_box(decode_box({d[0], d[1], d[2], d[3]}, load_box(references + i / classes * 4), sizes.weights), boxes + 4 * i);
    }
  });
}

void clip_boxes(Cpu, std::int64_t n, float height, float width, const float* boxes, float* clipped) {
  parallel_for(n, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) store_box(clip_box(load_box(boxes + 4 * i), height, width), clipped + 4 * i);
  });
}

}  // namespace shrike::kernels
