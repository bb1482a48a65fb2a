// Candidates for suppression, and rows gathered after it. Every result is `=`. Bounded by memory: 56 bytes an anchor for
// proposal_candidates; P (8 C + ...) words, a few hundred kilobytes, for detection_candidates, which a launch outweighs.
#include <limits>

#include "kernels/boxes.cuh"
#include "shrike/detection/proposals.hpp"

namespace shrike::kernels {
namespace {

constexpr unsigned threads = 256;
constexpr float dropped = -std::numeric_limits<float>::infinity();

// A box without area is too small for any min_size.
__device__ __forceinline__ bool large_enough(const Box& box, float min_size) {
  return box.width() > 0 && box.height() > 0 && box.width() >= min_size && box.height() >= min_size;
}

// One thread an anchor.
__global__ void __launch_bounds__(threads)
    proposal_candidates_kernel(ProposalSizes s, const float* __restrict__ objectness, const float* __restrict__ deltas,
                               const float* __restrict__ anchors, float* __restrict__ boxes, float* __restrict__ scores) {
  for (std::int64_t i = first_index(); i < s.anchors; i += index_step()) {
    const Box decoded = decode_box(load_delta4(deltas, i), load_box4(anchors, i), BoxWeights{});  // anchor_weights
    const Box box = clip_box(decoded, s.image_height, s.image_width);
    store_box4(box, boxes, i);
    const float score = objectness[i];
    scores[i] = score == score ? score : dropped;
  }
}

// One thread an entry.
__global__ void __launch_bounds__(threads)
    proposal_drop_kernel(std::int64_t n, float min_size, const float* __restrict__ boxes, const float* __restrict__ scores,
                         std::int32_t* __restrict__ order) {
  for (std::int64_t i = first_index(); i < n; i += index_step()) {
    const std::int64_t from = order[i];
    if (scores[from] == dropped || !large_enough(load_box4(boxes, from), min_size)) order[i] = -1;
  }
}

// One block: it first finds where the padding starts, then thread t copies rows t, t + threads, ...
__global__ void __launch_bounds__(1024)
    proposal_gather_kernel(ProposalGatherSizes s, const std::int32_t* __restrict__ index, const float* __restrict__ boxes,
                           const float* __restrict__ scores, float* __restrict__ out_boxes, float* __restrict__ out_scores,
                           std::int32_t* __restrict__ count) {
  SHRIKE_SHARED(int, end, [1]);
  const auto n = static_cast<int>(s.rows < s.indices ? s.rows : s.indices);
  if (threadIdx.x == 0) end[0] = n;
  __syncthreads();
  for (int row = static_cast<int>(threadIdx.x); row < n; row += static_cast<int>(blockDim.x)) {
    if (index[row] < 0) {
      atomicMin(&end[0], row);
      break;
    }
  }
  __syncthreads();
  const int filled = end[0];
  for (std::int64_t row = threadIdx.x; row < s.rows; row += blockDim.x) {
    const std::int64_t from = row < filled ? index[row] : 0;
    store_box4(row < filled ? load_box4(boxes, from) : Box{}, out_boxes, row);
    out_scores[row] = row < filled ? scores[from] : dropped;
  }
  if (threadIdx.x == 0) *count = filled;
}

// One block a proposal: exponentials into shared memory, each thread sums them in order of the classes (as the CPU does, so
// that HOST agrees to the bit), then thread t owns classes t + 1, t + 1 + threads, ...
__global__ void __launch_bounds__(128)
    detection_candidates_kernel(DetectionSizes s, const float* __restrict__ class_logits, const float* __restrict__ deltas,
                                const float* __restrict__ proposals, float* __restrict__ boxes, float* __restrict__ scores,
                                std::int32_t* __restrict__ labels, std::int32_t* __restrict__ count) {
  SHRIKE_DYNAMIC_SHARED(float, exponentials);  // [classes]
  const std::int64_t p = blockIdx.x;
  const float* logits = class_logits + p * s.classes;
  float greatest = logits[0];
  for (std::int64_t c = 1; c < s.classes; ++c) greatest = greater(greatest, logits[c]);
  for (std::int64_t c = threadIdx.x; c < s.classes; c += blockDim.x) exponentials[c] = std::exp(logits[c] - greatest);
  __syncthreads();
  float sum = 0;
  for (std::int64_t c = 0; c < s.classes; ++c) sum += exponentials[c];
  std::int32_t stayed = 0;
  for (std::int64_t c = 1 + threadIdx.x; c < s.classes; c += blockDim.x) {
    const std::int64_t i = p * (s.classes - 1) + c - 1;
    const float score = exponentials[c] / sum;
    const Box decoded = decode_box(load_delta4(deltas, p * s.classes + c), load_box4(proposals, p), s.weights);
    const Box box = clip_box(decoded, s.image_height, s.image_width);
    const bool stays = score > s.score_threshold && large_enough(box, s.min_size);
    store_box4(box, boxes, i);
    scores[i] = stays ? score : dropped;
    labels[i] = static_cast<std::int32_t>(c);
    stayed += stays ? 1 : 0;
  }
  if (stayed > 0) atomicAdd(count, stayed);  // integers: the same in any order
}

}  // namespace

void proposal_candidates(Cuda, ProposalSizes sizes, const float* objectness, const float* deltas, const float* anchors,
                         float* boxes, float* scores) {
  cuda::launch(proposal_candidates_kernel, cuda::blocks_for(sizes.anchors, threads), threads, 0, sizes, objectness, deltas,
               anchors, boxes, scores);
}

void proposal_drop(Cuda, std::int64_t n, float min_size, const float* boxes, const float* scores, std::int32_t* order) {
  cuda::launch(proposal_drop_kernel, cuda::blocks_for(n, threads), threads, 0, n, min_size, boxes, scores, order);
}

void proposal_gather(Cuda, ProposalGatherSizes sizes, const std::int32_t* index, const float* boxes, const float* scores,
                     float* out_boxes, float* out_scores, std::int32_t* count) {
  cuda::launch(proposal_gather_kernel, 1, 1024, 0, sizes, index, boxes, scores, out_boxes, out_scores, count);
}

void detection_candidates(Cuda d, DetectionSizes sizes, const float* class_logits, const float* deltas, const float* proposals,
                          float* boxes, float* scores, std::int32_t* labels, std::int32_t* count) {
  fill_bytes(d, count, 0, sizeof(std::int32_t));
  if (sizes.proposals == 0) return;
  cuda::launch(detection_candidates_kernel, static_cast<unsigned>(sizes.proposals), 128,
               static_cast<std::size_t>(sizes.classes) * sizeof(float), sizes, class_logits, deltas, proposals, boxes, scores,
               labels, count);
}

}  // namespace shrike::kernels
