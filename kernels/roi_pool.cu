// RoIPool: the greatest value of each bin, and where it was (Girshick, "Fast R-CNN"). The window of a bin is found in float by
// the very operations of the CPU, so values and places agree exactly.
//
// Forward: one block a bin, thread t owns channel vectors t, t + threads, ... (16 bytes where the channels allow). It reads
// every pixel of the window once; y and argmax are written `=`. Bytes at least: 8 an output. 128 regions of 7 x 7 x 512: 25.7
// MB written, on an H100 7.7 us; the windows (the regions overlap) come from L2.
//
// Backward: one block a pixel, so that nobody else adds to it: it lists the regions that cover the pixel, in order, and each
// thread sums, for its channels, the dy of the bins whose argmax the pixel is. `=`, no atomics, one order: by region, then by
// bin. It reads 8 bytes for each channel of each (pixel, bin) that meet, most of them from L2.
#include "kernels/roi.cuh"

namespace shrike::kernels {
namespace {

__device__ __forceinline__ void take_greater(float value, std::int32_t at, float& best, std::int32_t& place) {
  if (value > best || value != value) {
    best = value;
    place = at;
  }
}

template <int V> __global__ void __launch_bounds__(roi_threads, 4)
    roi_pool_forward_kernel(RoiSizes s, const float* __restrict__ x, const float* __restrict__ rois, float* __restrict__ y,
                            std::int32_t* __restrict__ argmax) {
  using Values = RoiVector<V>;
  const std::int64_t per_roi = s.out_height * s.out_width;
  const std::int64_t bin = blockIdx.x % per_roi;
  const float* roi = rois + blockIdx.x / per_roi * 5;
  const std::int64_t image = image_of(s, roi);
  const RoiBins rows = roi_bins(roi[2], roi[4], s.spatial_scale, s.out_height, s.height);
  const RoiBins columns = roi_bins(roi[1], roi[3], s.spatial_scale, s.out_width, s.width);
  const auto row_begin = static_cast<std::int32_t>(rows.begin(bin / s.out_width));
  const auto row_end = image < 0 ? row_begin : static_cast<std::int32_t>(rows.end(bin / s.out_width));
  const auto column_begin = static_cast<std::int32_t>(columns.begin(bin % s.out_width));
  const auto column_end = static_cast<std::int32_t>(columns.end(bin % s.out_width));
  const bool empty = row_begin >= row_end || column_begin >= column_end;
  const auto width = static_cast<std::int32_t>(s.width);
  const float* map = x + (image < 0 ? 0 : image) * s.height * s.width * s.channels;
  const std::int64_t out = static_cast<std::int64_t>(blockIdx.x) * s.channels;
  for (std::int64_t c = static_cast<std::int64_t>(threadIdx.x) * V; c < s.channels;
       c += static_cast<std::int64_t>(blockDim.x) * V) {
    Values best;
    std::int32_t place[V];
    const std::int32_t first = row_begin * width + column_begin;
    if (!empty) best = Values::load(map + first * s.channels + c);
#pragma unroll
    for (int k = 0; k < V; ++k) place[k] = empty ? -1 : first;
    for (std::int32_t row = row_begin; !empty && row < row_end; ++row) {
      for (std::int32_t column = column_begin; column < column_end; ++column) {
        const std::int32_t at = row * width + column;
        const Values values = Values::load(map + at * s.channels + c);
#pragma unroll
        for (int k = 0; k < V; ++k) take_greater(values.v[k], at, best.v[k], place[k]);
      }
    }
    best.store(y + out + c);
    store_places(place, argmax + out + c);
  }
}

// The bins that see a pixel.
struct Covering {
  std::int32_t roi, row_begin, row_end, column_begin, column_end;
};

// Of one axis, the bins that see pixel `at`: they follow one another.
__device__ __forceinline__ void covering_bins(const RoiBins& axis, std::int64_t at, std::int64_t count, std::int32_t& begin,
                                              std::int32_t& end) {
  begin = end = 0;
  for (std::int32_t bin = 0; bin < count; ++bin) {
    if (at < axis.begin(bin) || at >= axis.end(bin)) continue;
    if (begin == end) begin = bin;
    end = bin + 1;
  }
}

template <int V> __global__ void __launch_bounds__(roi_threads, 4)
    roi_pool_backward_kernel(RoiSizes s, const float* __restrict__ dy, const float* __restrict__ rois,
                             const std::int32_t* __restrict__ argmax, float* __restrict__ dx) {
  SHRIKE_SHARED(Covering, list, [roi_threads]);
  SHRIKE_SHARED(int, totals, [roi_threads / 32]);
  const std::int64_t pixels = s.height * s.width;
  const std::int64_t image = blockIdx.x / pixels;
  const auto at = static_cast<std::int32_t>(blockIdx.x % pixels);
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.y) * roi_threads + threadIdx.x) * V;
  const bool active = c < s.channels;
  RoiVector<V> sum;
  for (std::int64_t first = 0; first < s.rois; first += roi_threads) {
    const std::int64_t number = first + threadIdx.x;
    Covering mine{static_cast<std::int32_t>(number), 0, 0, 0, 0};
    if (number < s.rois && image_of(s, rois + number * 5) == image) {
      const float* roi = rois + number * 5;
      covering_bins(roi_bins(roi[2], roi[4], s.spatial_scale, s.out_height, s.height), at / s.width, s.out_height,
                    mine.row_begin, mine.row_end);
      covering_bins(roi_bins(roi[1], roi[3], s.spatial_scale, s.out_width, s.width), at % s.width, s.out_width,
                    mine.column_begin, mine.column_end);
    }
    const bool covers = mine.row_begin < mine.row_end && mine.column_begin < mine.column_end;
    const int count = list_in_order(covers, mine, list, totals);
    for (int i = 0; active && i < count; ++i) {
      const Covering entry = list[i];
      for (std::int32_t row = entry.row_begin; row < entry.row_end; ++row) {
        for (std::int32_t column = entry.column_begin; column < entry.column_end; ++column) {
          const std::int64_t from = ((entry.roi * s.out_height + row) * s.out_width + column) * s.channels + c;
          std::int32_t place[V];
          load_places(argmax + from, place);
          const auto g = RoiVector<V>::load(dy + from);
#pragma unroll
          for (int k = 0; k < V; ++k) {
            if (place[k] == at) sum.v[k] += g.v[k];
          }
        }
      }
    }
    __syncthreads();  // before the list is made anew
  }
  if (active) sum.store(dx + static_cast<std::int64_t>(blockIdx.x) * s.channels + c);
}

}  // namespace

void roi_pool_forward(Cuda, const RoiSizes& s, const float* x, const float* rois, float* y, std::int32_t* argmax) {
  if (s.rois == 0 || s.channels == 0) return;
  const auto kernel = s.channels % 4 == 0 ? roi_pool_forward_kernel<4> : roi_pool_forward_kernel<1>;
  cuda::launch(kernel, roi_blocks("roi_pool", s.rois * s.out_height * s.out_width), roi_threads, 0, s, x, rois, y, argmax);
}

void roi_pool_backward(Cuda, const RoiSizes& s, const float* dy, const float* rois, const std::int32_t* argmax, float* dx) {
  if (s.images * s.height * s.width * s.channels == 0) return;
  const auto kernel = s.channels % 4 == 0 ? roi_pool_backward_kernel<4> : roi_pool_backward_kernel<1>;
  cuda::launch(kernel, pixel_grid("roi_pool", s), roi_threads, 0, s, dy, rois, argmax, dx);
}

}  // namespace shrike::kernels
