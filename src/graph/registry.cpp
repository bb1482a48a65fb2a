#include <functional>
#include <map>

#include "shrike/graph/save.hpp"
#include "shrike/ops/batch_norm.hpp"
#include "shrike/ops/conv.hpp"
#include "shrike/ops/dynamic.hpp"
#include "shrike/ops/elementwise.hpp"
#include "shrike/ops/half.hpp"
#include "shrike/ops/layout.hpp"
#include "shrike/ops/linear.hpp"
#include "shrike/ops/pool.hpp"
#include "shrike/ops/quantize.hpp"
#include "shrike/ops/quantized_conv.hpp"
#include "shrike/ops/quantized_linear.hpp"
#include "shrike/ops/resample.hpp"
#include "shrike/ops/roi.hpp"

namespace shrike {
namespace {

using Makers = std::map<std::string, std::function<std::shared_ptr<Op>()>>;

template <class... Ops> Makers makers() {
  Makers result;
  (result.emplace(Ops().name(), [] { return std::make_shared<Ops>(); }), ...);
  return result;
}

}  // namespace

std::shared_ptr<Op> make_op(const std::string& name) {
  static const Makers known =
      makers<Add, AvgPool2d, BatchNorm, Concat, Conv2d, Dequantize, DynamicConv2d, DynamicLinear, DynamicQuantize, FakeQuantize,
             Flatten, HalfConv2d, HalfLinear, IndexRows, Linear, MaxPool2d, Narrow, Permute, Quantize, QuantizedConv2d,
             QuantizedLinear, Relu, Reshape, RoiAlign, RoiPool, Scale, Slice, Widen>();
  const auto found = known.find(name);
  return found == known.end() ? nullptr : found->second();
}

}  // namespace shrike
