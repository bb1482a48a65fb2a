#include <algorithm>

#include "shrike/core/threads.hpp"
#include "shrike/detection/anchors.hpp"

namespace shrike::kernels {

void anchors(Cpu, AnchorSizes sizes, const float* base, float* boxes) {
  const std::int64_t count = sizes.per_cell;
  parallel_for(sizes.map_height * sizes.map_width, (1 << 14) / std::max<std::int64_t>(count, 1),
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t cell = begin; cell < end; ++cell) {
                   const float x = static_cast<float>(cell % sizes.map_width) * sizes.stride_x + sizes.offset_x;
                   const float y = static_cast<float>(cell / sizes.map_width) * sizes.stride_y + sizes.offset_y;
                   for (std::int64_t a = 0; a < count; ++a) {
                     float* box = boxes + 4 * (cell * count + a);
                     box[0] = base[4 * a] + x;
                     box[1] = base[4 * a + 1] + y;
                     box[2] = base[4 * a + 2] + x;
                     box[3] = base[4 * a + 3] + y;
                   }
                 }
               });
}

}  // namespace shrike::kernels
