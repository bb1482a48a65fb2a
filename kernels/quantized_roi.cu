// RoIPool and RoIAlign of codes and of halves, as ops/roi.hpp defines them: the CPU's to the bit. One block a bin, thread t
// owns channels t, t + threads, ...; every element is written once (`=`). RoIPool moves a quarter of the bytes of its float
// twin, or half of them, and needs no places; RoIAlign reads 4 elements a sample, from L1 and L2: 16 for each that it writes
// with 2 x 2 samples.
#include "kernels/pooled.cuh"
#include "kernels/roi.cuh"

namespace shrike::kernels {
namespace {

template <class T> __global__ void __launch_bounds__(roi_threads, 4)
    quantized_roi_pool_kernel(RoiSizes s, const T* __restrict__ x, const float* __restrict__ rois, T* __restrict__ y) {
  using Best = typename Greatest<T>::Type;
  const std::int64_t per_roi = s.out_height * s.out_width;
  const std::int64_t bin = blockIdx.x % per_roi;
  const float* roi = rois + blockIdx.x / per_roi * 5;
  const std::int64_t image = image_of(s, roi);
  const RoiBins rows = roi_bins(roi[2], roi[4], s.spatial_scale, s.out_height, s.height);
  const RoiBins columns = roi_bins(roi[1], roi[3], s.spatial_scale, s.out_width, s.width);
  const std::int64_t row_begin = rows.begin(bin / s.out_width), row_end = rows.end(bin / s.out_width);
  const std::int64_t column_begin = columns.begin(bin % s.out_width), column_end = columns.end(bin % s.out_width);
  const bool empty = image < 0 || row_begin >= row_end || column_begin >= column_end;
  const T* map = x + (image < 0 ? 0 : image) * s.height * s.width * s.channels;
  for (std::int64_t c = threadIdx.x; c < s.channels; c += blockDim.x) {
    Best best = empty ? Best{} : Greatest<T>::least();
    for (std::int64_t row = row_begin; !empty && row < row_end; ++row) {
      for (std::int64_t column = column_begin; column < column_end; ++column) {
        const Best element = map[(row * s.width + column) * s.channels + c];
        best = is_greater(element, best) ? element : best;
      }
    }
    y[static_cast<std::int64_t>(blockIdx.x) * s.channels + c] = static_cast<T>(best);
  }
}

struct CodeAxis {
  float start, size;
  std::int32_t samples, extent;
};

__device__ __forceinline__ bool finite(float v) { return fabsf(v) <= 3.402823466e38f; }

__device__ __forceinline__ CodeAxis code_axis(float low, float high, const RoiSizes& s, std::int64_t bins,
                                              std::int64_t map_size) {
  const auto extent = static_cast<std::int32_t>(map_size);
  const float offset = s.aligned ? 0.5f : 0.0f;
  const float start = fmaf(low, s.spatial_scale, -offset);
  float length = fmaf(high, s.spatial_scale, -offset) - start;
  if (!s.aligned) length = length < 1.0f ? 1.0f : length;  // NaN stays
  const float size = length / static_cast<float>(bins);
  if (extent == 0 || !finite(start) || !finite(size)) return {0, 0, 0, extent};
  const float whole = ceilf(size), most = 1 << 30;
  const auto adaptive = static_cast<std::int32_t>(whole < 0.0f ? 0.0f : whole > most ? most : whole);
  return {start, size, s.sampling_ratio > 0 ? static_cast<std::int32_t>(s.sampling_ratio) : adaptive, extent};
}

struct CodeSample {
  std::int32_t low, high;
  float low_weight, high_weight;
};

// Calls f(sample) for the samples of a bin that count.
template <class F> __device__ __forceinline__ void for_code_samples(const CodeAxis& axis, std::int64_t bin, const F& f) {
  std::int32_t from = 0, to = axis.samples;
  const auto all = static_cast<double>(axis.samples);
  const double step = static_cast<double>(axis.size) / (axis.samples > 0 ? all : 1.0);
  if (axis.samples > 64 && step > 0) {
    // Of the samples of a huge region only those near the map are looked at. Rounding of (i + 0.5) / samples and of the place
    // moves a sample by less than 2^-20 of the region.
    const double origin = static_cast<double>(axis.start) + static_cast<double>(bin) * static_cast<double>(axis.size);
    const double slack = 2.0 + (fabs(origin) + static_cast<double>(axis.size)) / 1048576.0 / step;
    const double first = floor((-1.0 - origin) / step - slack);
    const double last = ceil((static_cast<double>(axis.extent) - origin) / step + slack);
    from = first > 0.0 ? static_cast<std::int32_t>(first < all ? first : all) : 0;
    to = last < all ? static_cast<std::int32_t>(last > 0.0 ? last : 0.0) : axis.samples;
  }
  for (std::int32_t i = from; i < to; ++i) {
    const float part = (static_cast<float>(i) + 0.5f) / static_cast<float>(axis.samples);
    float at = fmaf(static_cast<float>(bin) + part, axis.size, axis.start);
    if (!(at >= -1.0f && at <= static_cast<float>(axis.extent))) continue;
    at = at < 0.0f ? 0.0f : at;
    const auto low = static_cast<std::int32_t>(at);
    if (low >= axis.extent - 1) {
      f(CodeSample{axis.extent - 1, axis.extent - 1, 1.0f, 0.0f});
    } else {
      const float fraction = at - static_cast<float>(low);
      f(CodeSample{low, low + 1, 1.0f - fraction, fraction});
    }
  }
}

template <class T> __global__ void __launch_bounds__(roi_threads, 4)
    quantized_roi_align_kernel(RoiSizes s, const T* __restrict__ x, const float* __restrict__ rois, T* __restrict__ y) {
  const std::int64_t per_roi = s.out_height * s.out_width;
  const std::int64_t bin = blockIdx.x % per_roi;
  const float* roi = rois + blockIdx.x / per_roi * 5;
  const std::int64_t image = image_of(s, roi);
  const CodeAxis rows = code_axis(roi[2], roi[4], s, s.out_height, s.height);
  const CodeAxis columns = code_axis(roi[1], roi[3], s, s.out_width, s.width);
  const float count = static_cast<float>(rows.samples) * static_cast<float>(columns.samples);
  const bool empty = image < 0 || !(count > 0.0f);
  const T* map = x + (image < 0 ? 0 : image) * s.height * s.width * s.channels;
  for (std::int64_t c = threadIdx.x; c < s.channels; c += blockDim.x) {
    float sum = 0.0f;
    if (!empty) {
      for_code_samples(rows, bin / s.out_width, [&](const CodeSample& row) {
        const T* above = map + row.low * s.width * s.channels + c;
        const T* below = map + row.high * s.width * s.channels + c;
        for_code_samples(columns, bin % s.out_width, [&](const CodeSample& column) {
          const std::int64_t left = column.low * s.channels, right = column.high * s.channels;
          sum = fmaf(row.low_weight * column.low_weight, value_of(above[left]), sum);
          sum = fmaf(row.low_weight * column.high_weight, value_of(above[right]), sum);
          sum = fmaf(row.high_weight * column.low_weight, value_of(below[left]), sum);
          sum = fmaf(row.high_weight * column.high_weight, value_of(below[right]), sum);
        });
      });
    }
    y[static_cast<std::int64_t>(blockIdx.x) * s.channels + c] = nearest<T>(empty ? 0.0f : sum / count);
  }
}

}  // namespace

void quantized_roi_pool_forward(Cuda, const RoiSizes& s, Dtype dtype, const void* x, const float* rois, void* y) {
  if (s.rois == 0 || s.channels == 0) return;
  const unsigned blocks = roi_blocks("roi_pool", s.rois * s.out_height * s.out_width);
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    cuda::launch(quantized_roi_pool_kernel<T>, blocks, roi_threads, 0, s, static_cast<const T*>(x), rois, static_cast<T*>(y));
  });
}

void quantized_roi_align_forward(Cuda, const RoiSizes& s, Dtype dtype, const void* x, const float* rois, void* y) {
  if (s.rois == 0 || s.channels == 0) return;
  check_axes("roi_align", s);
  const unsigned blocks = roi_blocks("roi_align", s.rois * s.out_height * s.out_width);
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    cuda::launch(quantized_roi_align_kernel<T>, blocks, roi_threads, 0, s, static_cast<const T*>(x), rois, static_cast<T*>(y));
  });
}

}  // namespace shrike::kernels
