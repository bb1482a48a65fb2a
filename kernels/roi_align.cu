// RoIAlign: the mean of bilinear samples in each bin (He et al., "Mask R-CNN"). A bin's mean is separable: weights along the
// rows times weights along the columns.
//
// Forward: one block a bin, thread t owns channel vectors t, t + threads, ... (16 bytes where the channels allow); y `=`. 128
// regions of 7 x 7 x 512 with 2 x 2 samples: 12.8 MB written, 16 reads of 4 bytes an output (205 MB) from L1 and L2, 0.1 GFLOP;
// on an H100 3.8 us for the writes, about 35 us for the reads at L2's speed.
//
// Backward: first a table for each axis says with which weight each bin of each region sees each row (column) of the map, 4 (H
// 7 + W 7) bytes a region. Then one block a pixel, so that nobody else adds to it, lists the regions that see the pixel, in
// order, and each thread sums weight * dy over their bins for its channels. `=`, no atomics, one order: by region, then by bin.
// It reads 4 bytes for each channel of each (pixel, bin) that meet, about 12 bins a bin's pixel, from L2.
#include "kernels/roi.cuh"

namespace shrike::kernels {
namespace {

// Where one axis of a region starts, and how it is sampled; samples is 0 if it is not finite.
struct Axis {
  float start, bin_size;
  std::int32_t samples;  // in a bin
  std::int32_t extent;

  __device__ __forceinline__ float bin_start(std::int64_t bin) const { return start + static_cast<float>(bin) * bin_size; }
};

__device__ __forceinline__ Axis axis_of(float low, float high, const RoiSizes& s, std::int64_t bins, std::int64_t size) {
  const auto extent = static_cast<std::int32_t>(size);
  const float offset = s.aligned ? 0.5f : 0.0f;
  const float start = low * s.spatial_scale - offset;
  float length = high * s.spatial_scale - offset - start;
  if (!s.aligned) length = length < 1.0f ? 1.0f : length;  // NaN stays
  const float bin_size = length / static_cast<float>(bins);
  if (extent == 0 || !(fabsf(start) <= 3.402823466e38f) || !(fabsf(bin_size) <= 3.402823466e38f)) return {0, 0, 0, extent};
  const float whole = ceilf(bin_size);
  const float most = 1 << 30;
  const auto adaptive = static_cast<std::int32_t>(whole < 0.0f ? 0.0f : whole > most ? most : whole);
  return {start, bin_size, s.sampling_ratio > 0 ? static_cast<std::int32_t>(s.sampling_ratio) : adaptive, extent};
}

// A sample: weight `low_weight` on pixel `low`, `high_weight` on the next.
struct Sample {
  std::int32_t low;
  float low_weight, high_weight;
};

// Calls f(sample) for the samples of a bin that touch the map; of those of a huge region only the ones near it are looked at.
template <class F> __device__ __forceinline__ void for_samples(const Axis& axis, std::int64_t bin, const F& f) {
  if (axis.samples == 0) return;
  const float bin_start = axis.bin_start(bin);
  const float weight = 1.0f / static_cast<float>(axis.samples);
  std::int32_t from = 0, to = axis.samples;
  if (axis.samples > 8 && axis.bin_size > 0.0f) {
    const double step = static_cast<double>(axis.bin_size) / static_cast<double>(axis.samples);
    const double first = floor((-1.0 - static_cast<double>(bin_start)) / step) - 2.0;
    const double last = ceil((static_cast<double>(axis.extent) - static_cast<double>(bin_start)) / step) + 2.0;
    const auto all = static_cast<double>(axis.samples);
    from = first > 0.0 ? static_cast<std::int32_t>(first < all ? first : all) : 0;
    to = last < all ? static_cast<std::int32_t>(last > 0.0 ? last : 0.0) : axis.samples;
  }
  const std::int32_t last_pixel = axis.extent - 1;
  for (std::int32_t i = from; i < to; ++i) {
    float at = bin_start + (static_cast<float>(i) + 0.5f) * axis.bin_size / static_cast<float>(axis.samples);
    if (!(at >= -1.0f && at <= static_cast<float>(axis.extent))) continue;
    at = at < 0.0f ? 0.0f : at;
    const auto low = static_cast<std::int32_t>(at);
    if (low >= last_pixel) {
      f(Sample{last_pixel, weight, 0.0f});
    } else {
      const float fraction = at - static_cast<float>(low);
      f(Sample{low, weight * (1.0f - fraction), weight * fraction});
    }
  }
}

template <int V> __global__ void __launch_bounds__(roi_threads, 4)
    roi_align_forward_kernel(RoiSizes s, const float* __restrict__ x, const float* __restrict__ rois, float* __restrict__ y) {
  using Values = RoiVector<V>;
  const std::int64_t per_roi = s.out_height * s.out_width;
  const std::int64_t bin = blockIdx.x % per_roi;
  const float* roi = rois + blockIdx.x / per_roi * 5;
  const std::int64_t image = image_of(s, roi);
  const Axis rows = axis_of(roi[2], roi[4], s, s.out_height, s.height);
  const Axis columns = axis_of(roi[1], roi[3], s, s.out_width, s.width);
  const float* map = x + (image < 0 ? 0 : image) * s.height * s.width * s.channels;
  for (std::int64_t c = static_cast<std::int64_t>(threadIdx.x) * V; c < s.channels;
       c += static_cast<std::int64_t>(blockDim.x) * V) {
    Values sum;
    const auto add_row = [&](std::int32_t row, float weight) {
      const float* line = map + row * s.width * s.channels + c;
      for_samples(columns, bin % s.out_width, [&](const Sample& column) {
        const float* from = line + column.low * s.channels;
        sum.add_scaled(weight * column.low_weight, Values::load(from));
        if (column.high_weight > 0.0f) sum.add_scaled(weight * column.high_weight, Values::load(from + s.channels));
      });
    };
    if (image >= 0) {
      for_samples(rows, bin / s.out_width, [&](const Sample& row) {
        add_row(row.low, row.low_weight);
        if (row.high_weight > 0.0f) add_row(row.low + 1, row.high_weight);
      });
    }
    sum.store(y + static_cast<std::int64_t>(blockIdx.x) * s.channels + c);
  }
}

// One thread a (region, bin) of one axis: weights[pixel][region][bin], filled with zeros before, `+=`.
__global__ void __launch_bounds__(roi_threads, 4)
    roi_align_weights_kernel(RoiSizes s, bool of_rows, const float* __restrict__ rois, float* __restrict__ weights) {
  const std::int64_t bins = of_rows ? s.out_height : s.out_width;
  const std::int64_t n = s.rois * bins;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    const float* roi = rois + i / bins * 5;
    if (image_of(s, roi) < 0) continue;
    const Axis axis = of_rows ? axis_of(roi[2], roi[4], s, bins, s.height) : axis_of(roi[1], roi[3], s, bins, s.width);
    for_samples(axis, i % bins, [&](const Sample& sample) {
      weights[sample.low * n + i] += sample.low_weight;
      if (sample.high_weight > 0.0f) weights[(sample.low + 1) * n + i] += sample.high_weight;
    });
  }
}

__device__ __forceinline__ bool any_of(const float* weights, std::int64_t n) {
  bool any = false;
  for (std::int64_t i = 0; i < n; ++i) any |= weights[i] != 0.0f;
  return any;
}

template <int V> __global__ void __launch_bounds__(roi_threads, 4)
    roi_align_backward_kernel(RoiSizes s, const float* __restrict__ dy, const float* __restrict__ rois,
                              const float* __restrict__ row_weights, const float* __restrict__ column_weights,
                              float* __restrict__ dx) {
  SHRIKE_SHARED(std::int32_t, list, [roi_threads]);
  SHRIKE_SHARED(int, totals, [roi_threads / 32]);
  const std::int64_t pixels = s.height * s.width;
  const std::int64_t image = blockIdx.x / pixels;
  const std::int64_t at = blockIdx.x % pixels;
  const float* of_row = row_weights + at / s.width * s.rois * s.out_height;
  const float* of_column = column_weights + at % s.width * s.rois * s.out_width;
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.y) * roi_threads + threadIdx.x) * V;
  const bool active = c < s.channels;
  RoiVector<V> sum;
  for (std::int64_t first = 0; first < s.rois; first += roi_threads) {
    const std::int64_t number = first + threadIdx.x;
    const bool covers = number < s.rois && image_of(s, rois + number * 5) == image &&
                        any_of(of_row + number * s.out_height, s.out_height) &&
                        any_of(of_column + number * s.out_width, s.out_width);
    const int count = list_in_order(covers, static_cast<std::int32_t>(number), list, totals);
    for (int i = 0; active && i < count; ++i) {
      const std::int64_t roi = list[i];
      for (std::int64_t row = 0; row < s.out_height; ++row) {
        const float row_weight = of_row[roi * s.out_height + row];
        if (row_weight == 0.0f) continue;
        for (std::int64_t column = 0; column < s.out_width; ++column) {
          const float weight = row_weight * of_column[roi * s.out_width + column];
          if (weight == 0.0f) continue;
          sum.add_scaled(weight, RoiVector<V>::load(dy + ((roi * s.out_height + row) * s.out_width + column) * s.channels + c));
        }
      }
    }
    __syncthreads();  // before the list is made anew
  }
  if (active) sum.store(dx + static_cast<std::int64_t>(blockIdx.x) * s.channels + c);
}

}  // namespace

void roi_align_forward(Cuda, const RoiSizes& s, const float* x, const float* rois, float* y) {
  if (s.rois == 0 || s.channels == 0) return;
  check_axes("roi_align", s);
  const auto kernel = s.channels % 4 == 0 ? roi_align_forward_kernel<4> : roi_align_forward_kernel<1>;
  cuda::launch(kernel, roi_blocks("roi_align", s.rois * s.out_height * s.out_width), roi_threads, 0, s, x, rois, y);
}

void roi_align_backward(Cuda d, const RoiSizes& s, const float* dy, const float* rois, float* dx) {
  if (s.images * s.height * s.width * s.channels == 0) return;
  check_axes("roi_align", s);
  const std::int64_t row_table = s.height * s.rois * s.out_height, column_table = s.width * s.rois * s.out_width;
  const std::size_t bytes = static_cast<std::size_t>(row_table + column_table) * sizeof(float);
  const cuda::Scratch weights(std::max<std::size_t>(bytes, sizeof(float)));
  auto* rows = weights.data<float>();
  float* columns = rows + row_table;
  if (s.rois > 0) {
    fill_bytes(d, rows, 0, bytes);
    cuda::launch(roi_align_weights_kernel, cuda::blocks_for(s.rois * s.out_height, roi_threads), roi_threads, 0, s, true, rois,
                 rows);
    cuda::launch(roi_align_weights_kernel, cuda::blocks_for(s.rois * s.out_width, roi_threads), roi_threads, 0, s, false, rois,
                 columns);
  }
  const auto kernel = s.channels % 4 == 0 ? roi_align_backward_kernel<4> : roi_align_backward_kernel<1>;
  cuda::launch(kernel, pixel_grid("roi_align", s), roi_threads, 0, s, dy, rois, rows, columns, dx);
}

}  // namespace shrike::kernels
