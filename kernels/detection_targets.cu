// Matching, sampling and encoding: what the RPN and the box head are trained towards. IoU and offsets are computed by the
// functions that the CPU uses, and each float operation is rounded by itself (this file is compiled without contraction).
//
// Matching keeps no N x M matrix: a thread owns an anchor, boxes pass through shared memory. 16 operations and one division an
// (anchor, box) pair, 24 bytes an anchor: 17,100 anchors and 10 boxes are 3 MFLOP and 0.4 MB, less than a launch takes.
#include "kernels/boxes.cuh"
#include "shrike/detection/targets.hpp"

namespace shrike::kernels {
namespace {

constexpr unsigned threads = 128;  // also the number of boxes in shared memory

// Calls f(j, iou of box and boxes[j]) for all j in order. All threads of the block take part; `active` says whether this one
// has a box. tile [threads] is shared.
template <class F> __device__ __forceinline__ void for_boxes(std::int64_t n, const float* __restrict__ boxes, const Box& box,
                                                             bool active, float4* tile, const F& f) {
  for (std::int64_t first = 0; first < n; first += threads) {
    const int count = static_cast<int>(n - first < threads ? n - first : threads);
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < count) tile[threadIdx.x] = reinterpret_cast<const float4*>(boxes)[first + threadIdx.x];
    __syncthreads();
    if (!active) continue;
    for (int j = 0; j < count; ++j) {
      const float4 b = tile[j];
      f(first + j, iou(box, {b.x, b.y, b.z, b.w}));
    }
  }
}

// Finds the first of the greatest overlaps.
struct BestBox {
  std::int32_t match = 0;
  float overlap = 0;

  __device__ __forceinline__ void see(std::int64_t j, float value) {
    if (value > overlap) {
      overlap = value;
      match = static_cast<std::int32_t>(j);
    }
  }
};

__device__ __forceinline__ bool inside(const RpnMatchSizes& s, const Box& a) {
  return a.x1 >= -s.straddle && a.y1 >= -s.straddle && a.x2 <= s.image_width + s.straddle &&
         a.y2 <= s.image_height + s.straddle;
}

// match and labels `=`, one thread an anchor; best is raised to each box's greatest overlap. Overlaps are not negative, so that
// their bits compare as integers do, and an integer maximum is the same in any order.
__global__ void __launch_bounds__(threads)
    rpn_match_kernel(RpnMatchSizes s, const float* __restrict__ anchors, const float* __restrict__ boxes,
                     std::int32_t* __restrict__ match, std::int32_t* __restrict__ labels, std::int32_t* __restrict__ best) {
  SHRIKE_SHARED_ALIGNED(16, float4, tile, [threads]);
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads; first < s.anchors;
       first += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t i = first + threadIdx.x;
    const bool active = i < s.anchors;
    const Box anchor = active ? load_box4(anchors, i) : Box{};
    const bool takes_part = inside(s, anchor);
    BestBox found;
    for_boxes(s.boxes, boxes, anchor, active, tile, [&](std::int64_t j, float overlap) {
      found.see(j, overlap);
      if (takes_part && overlap > 0.0f) atomicMax(best + j, __float_as_int(overlap));
    });
    if (!active) continue;
    match[i] = found.match;
    labels[i] = !takes_part ? -1 : found.overlap >= s.positive_iou ? 1 : found.overlap < s.negative_iou ? 0 : -1;
  }
}

// labels = 1 where an anchor is as good as the best of some box.
__global__ void __launch_bounds__(threads)
    rpn_match_best_kernel(RpnMatchSizes s, const float* __restrict__ anchors, const float* __restrict__ boxes,
                          const float* __restrict__ best, std::int32_t* __restrict__ labels) {
  SHRIKE_SHARED_ALIGNED(16, float4, tile, [threads]);
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads; first < s.anchors;
       first += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t i = first + threadIdx.x;
    const Box anchor = i < s.anchors ? load_box4(anchors, i) : Box{};
    const bool active = i < s.anchors && inside(s, anchor);
    bool is_best = false;
    for_boxes(s.boxes, boxes, anchor, active, tile,
              [&](std::int64_t j, float overlap) { is_best |= overlap > 0.0f && overlap == best[j] && overlap >= s.best_iou; });
    if (is_best) labels[i] = 1;
  }
}

__global__ void __launch_bounds__(threads)
    roi_match_kernel(RoiMatchSizes s, const float* __restrict__ candidates, const float* __restrict__ boxes,
                     const std::int32_t* __restrict__ box_labels, std::int32_t* __restrict__ match,
                     std::int32_t* __restrict__ labels) {
  SHRIKE_SHARED_ALIGNED(16, float4, tile, [threads]);
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads; first < s.candidates;
       first += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t i = first + threadIdx.x;
    const bool active = i < s.candidates;
    const Box box = active ? load_box4(candidates, i) : Box{};
    BestBox found;
    for_boxes(s.boxes, boxes, box, active, tile, [&](std::int64_t j, float overlap) { found.see(j, overlap); });
    if (!active) continue;
    const bool area = box.width() > 0 && box.height() > 0;
    const bool negative = found.overlap >= s.negative_low && found.overlap < s.negative_iou;
    match[i] = found.match;
    labels[i] = !area ? -1 : found.overlap >= s.positive_iou ? box_labels[found.match] : negative ? 0 : -1;
  }
}

// shares `=`, one thread an image; each adds up all counts, which are few.
__global__ void __launch_bounds__(threads)
    sample_shares_kernel(std::int64_t images, std::int64_t least, const std::int32_t* __restrict__ counts,
                         float* __restrict__ shares) {
  std::int64_t sampled = 0;
  for (std::int64_t i = 0; i < 2 * images; ++i) sampled += counts[i];
  if (sampled < least) sampled = least;
  for (std::int64_t i = first_index(); i < images; i += index_step()) {
    shares[i] = static_cast<float>(counts[2 * i] + counts[2 * i + 1]) / static_cast<float>(sampled);
  }
}

// Encodes row by row; all else was filled with zeros.
__global__ void __launch_bounds__(threads)
    rpn_encode_kernel(const float* __restrict__ anchors, const float* __restrict__ boxes,
                      const std::int32_t* __restrict__ match, const std::int32_t* __restrict__ labels,
                      const std::int32_t* __restrict__ selected, const std::int32_t* __restrict__ counts,
                      float* __restrict__ cls_target, float* __restrict__ cls_weight, float* __restrict__ box_target,
                      float* __restrict__ box_weight) {
  const std::int32_t sampled = counts[0] + counts[1];
  const float weight = 1.0f / static_cast<float>(sampled > 1 ? sampled : 1);
  for (std::int64_t row = first_index(); row < sampled; row += index_step()) {
    const std::int64_t i = selected[row];
    cls_weight[i] = weight;
    if (labels[i] == 0) continue;
    cls_target[i] = 1;
    const BoxDelta d = encode_box(load_box4(boxes, match[i]), load_box4(anchors, i), BoxWeights{});  // anchor_weights
    store_box4({d.x, d.y, d.w, d.h}, box_target, i);
    store_box4({weight, weight, weight, weight}, box_weight, i);
  }
}

// One thread a (row, class); that of class 0 writes the region and its label. Every word `=`.
__global__ void __launch_bounds__(threads)
    roi_encode_kernel(RoiEncodeSizes s, const float* __restrict__ candidates, const float* __restrict__ boxes,
                      const std::int32_t* __restrict__ match, const std::int32_t* __restrict__ candidate_labels,
                      const std::int32_t* __restrict__ selected, const std::int32_t* __restrict__ counts,
                      float* __restrict__ rois, std::int32_t* __restrict__ labels, float* __restrict__ box_target,
                      float* __restrict__ box_weight) {
  const std::int32_t sampled = counts[0] + counts[1];
  const float weight = 1.0f / static_cast<float>(sampled > 1 ? sampled : 1);
  for (std::int64_t item = first_index(); item < s.batch * s.num_classes; item += index_step()) {
    const std::int64_t row = item / s.num_classes;
    const std::int64_t c = item % s.num_classes;
    const std::int64_t i = row < sampled ? selected[row] : -1;
    const Box roi = i >= 0 ? load_box4(candidates, i) : Box{};
    const std::int32_t label = i >= 0 ? candidate_labels[i] : -1;
    Box target, weights;
    if (c > 0 && c == label) {
      const BoxDelta d = encode_box(load_box4(boxes, match[i]), roi, s.weights);
      target = {d.x, d.y, d.w, d.h};
      weights = {weight, weight, weight, weight};
    }
    store_box4(target, box_target, item);
    store_box4(weights, box_weight, item);
    if (c > 0) continue;
    float* region = rois + 5 * row;
    region[0] = i >= 0 ? s.image_index : 0.0f;
    region[1] = roi.x1;
    region[2] = roi.y1;
    region[3] = roi.x2;
    region[4] = roi.y2;
    labels[row] = label;
  }
}

}  // namespace

void rpn_match(Cuda d, RpnMatchSizes sizes, const float* anchors, const float* boxes, std::int32_t* match, std::int32_t* labels,
               float* best) {
  if (sizes.boxes > 0) fill_bytes(d, best, 0, static_cast<std::size_t>(sizes.boxes) * sizeof(float));
  const unsigned blocks = cuda::blocks_for(sizes.anchors, threads);
  cuda::launch(rpn_match_kernel, blocks, threads, 0, sizes, anchors, boxes, match, labels,
               reinterpret_cast<std::int32_t*>(best));
  if (sizes.best_is_positive && sizes.boxes > 0) {
    cuda::launch(rpn_match_best_kernel, blocks, threads, 0, sizes, anchors, boxes, best, labels);
  }
}

void roi_match(Cuda, RoiMatchSizes sizes, const float* candidates, const float* boxes, const std::int32_t* box_labels,
               std::int32_t* match, std::int32_t* labels) {
  cuda::launch(roi_match_kernel, cuda::blocks_for(sizes.candidates, threads), threads, 0, sizes, candidates, boxes, box_labels,
               match, labels);
}

void sample_shares(Cuda, std::int64_t images, std::int64_t least, const std::int32_t* counts, float* shares) {
  cuda::launch(sample_shares_kernel, cuda::blocks_for(images, threads), threads, 0, images, least, counts, shares);
}

void rpn_encode(Cuda d, RpnEncodeSizes sizes, const float* anchors, const float* boxes, const std::int32_t* match,
                const std::int32_t* labels, const std::int32_t* selected, const std::int32_t* counts, float* cls_target,
                float* cls_weight, float* box_target, float* box_weight) {
  if (sizes.anchors == 0) return;
  const std::size_t bytes = static_cast<std::size_t>(sizes.anchors) * sizeof(float);
  fill_bytes(d, cls_target, 0, bytes);
  fill_bytes(d, cls_weight, 0, bytes);
  fill_bytes(d, box_target, 0, 4 * bytes);
  fill_bytes(d, box_weight, 0, 4 * bytes);
  cuda::launch(rpn_encode_kernel, cuda::blocks_for(std::min(sizes.batch, sizes.anchors), threads), threads, 0, anchors, boxes,
               match, labels, selected, counts, cls_target, cls_weight, box_target, box_weight);
}

void roi_encode(Cuda, RoiEncodeSizes sizes, const float* candidates, const float* boxes, const std::int32_t* match,
                const std::int32_t* candidate_labels, const std::int32_t* selected, const std::int32_t* counts, float* rois,
                std::int32_t* labels, float* box_target, float* box_weight) {
  cuda::launch(roi_encode_kernel, cuda::blocks_for(sizes.batch * sizes.num_classes, threads), threads, 0, sizes, candidates,
               boxes, match, candidate_labels, selected, counts, rois, labels, box_target, box_weight);
}

}  // namespace shrike::kernels
