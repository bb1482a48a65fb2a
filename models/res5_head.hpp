// The box head that a ResNet brings along: its last stage (He et al., "Deep Residual Learning", appendix A; "C4" in
// Detectron2).
#pragma once

#include <memory>

#include "models/heads.hpp"
#include "models/resnet.hpp"

namespace shrike::models {

// Pooled regions [K, S, S, C] of a ResnetC4's map -> class logits [K, classes] and box deltas of each class [K, 4 classes]:
// layer4 to ceil(S / 2) a side, the mean over all places, predictors. S is 1 to 32. Names as in torchvision, below "roi_heads";
// layer4 is box_head.layer4. Live batch norm sees all K regions, those that pad a sample (RoiTargets), too.
class Res5Head : public nn::Module {
 public:
  Res5Head(const ResnetOptions& resnet, std::int64_t classes, const HeadInit& init = {})
      : layer4_(resnet_layer(4, resnet)),
        cls_score_(resnet_channels(resnet.depth, resnet.width, 4), classes, false, init.cls_score),
        bbox_pred_(resnet_channels(resnet.depth, resnet.width, 4), 4 * classes, false, init.bbox_pred) {}

  Tensors forward(const Tensors& in) override {
    const Tensor map = (*layer4_)(in[0]);
    PoolOptions all;
    all.kernel = map.size(1);
    const Tensor x = flatten(avg_pool2d(map, all));
    return {cls_score_(x), bbox_pred_(x)};
  }

  void visit(nn::Members& members) override {
    members.child("box_head.layer4", *layer4_);
    members.child("box_predictor.cls_score", cls_score_);
    members.child("box_predictor.bbox_pred", bbox_pred_);
  }

 private:
  std::shared_ptr<nn::Sequential> layer4_;
  nn::Linear cls_score_;
  nn::Linear bbox_pred_;
};

}  // namespace shrike::models
