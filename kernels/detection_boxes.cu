// Box regression and clipping, by the very functions that the CPU uses. One thread a box, every result `=`; bounded by memory:
// 48 bytes a box to encode or decode, 32 to clip.
#include "kernels/boxes.cuh"

namespace shrike::kernels {
namespace {

constexpr unsigned threads = 256;

__global__ void __launch_bounds__(threads)
    encode_boxes_kernel(std::int64_t n, BoxWeights weights, const float* __restrict__ boxes,
                        const float* __restrict__ references, float* __restrict__ deltas) {
  for (std::int64_t i = first_index(); i < n; i += index_step()) {
    const BoxDelta d = encode_box(load_box4(boxes, i), load_box4(references, i), weights);
    store_box4({d.x, d.y, d.w, d.h}, deltas, i);
  }
}

__global__ void __launch_bounds__(threads)
    decode_boxes_kernel(DecodeSizes s, const float* __restrict__ deltas, const float* __restrict__ references,
                        float* __restrict__ boxes) {
  for (std::int64_t i = first_index(); i < s.boxes * s.classes; i += index_step()) {
    store_box4(decode_box(load_delta4(deltas, i), load_box4(references, i / s.classes), s.weights), boxes, i);
  }
}

__global__ void __launch_bounds__(threads)
    clip_boxes_kernel(std::int64_t n, float height, float width, const float* __restrict__ boxes, float* __restrict__ clipped) {
  for (std::int64_t i = first_index(); i < n; i += index_step()) {
    store_box4(clip_box(load_box4(boxes, i), height, width), clipped, i);
  }
}

}  // namespace

void encode_boxes(Cuda, std::int64_t n, BoxWeights weights, const float* boxes, const float* references, float* deltas) {
  cuda::launch(encode_boxes_kernel, cuda::blocks_for(n, threads), threads, 0, n, weights, boxes, references, deltas);
}

void decode_boxes(Cuda, DecodeSizes sizes, const float* deltas, const float* references, float* boxes) {
  cuda::launch(decode_boxes_kernel, cuda::blocks_for(sizes.boxes * sizes.classes, threads), threads, 0, sizes, deltas,
               references, boxes);
}

void clip_boxes(Cuda, std::int64_t n, float height, float width, const float* boxes, float* clipped) {
  cuda::launch(clip_boxes_kernel, cuda::blocks_for(n, threads), threads, 0, n, height, width, boxes, clipped);
}

}  // namespace shrike::kernels
