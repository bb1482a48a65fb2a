// The two heads of Faster R-CNN.
#pragma once

#include "shrike/nn/layers.hpp"
#include "shrike/ops/layout.hpp"

namespace shrike::models {

// How the layers of the two heads begin.
struct HeadInit {
  nn::Init rpn_conv = nn::Init::normal(0.01f);
  nn::Init rpn_predictors = nn::Init::normal(0.01f);
  nn::Init hidden = nn::Init::he();  // fc6, fc7
  nn::Init cls_score = nn::Init::normal(0.01f);
  nn::Init bbox_pred = nn::Init::normal(0.01f);
};

// The region proposal network: a feature map [N, H, W, C] -> for each of the A anchors at a place, objectness logits [N, H, W,
// A] and box deltas [N, H, W, 4 A]. Names as in torchvision, below "rpn.head".
class RpnHead : public nn::Module {
 public:
  RpnHead(std::int64_t in, std::int64_t hidden, std::int64_t anchors_per_place, const HeadInit& init = {})
      : conv_(in, hidden, 3, same_size(), true, init.rpn_conv),
        cls_logits_(hidden, anchors_per_place, 1, {}, true, init.rpn_predictors),
        bbox_pred_(hidden, 4 * anchors_per_place, 1, {}, true, init.rpn_predictors) {}

  Tensors forward(const Tensors& in) override {
    const Tensor x = conv_(in[0]);
    return {cls_logits_(x), bbox_pred_(x)};
  }

  void visit(nn::Members& members) override {
    members.child("conv.0.0", conv_);
    members.child("cls_logits", cls_logits_);
    members.child("bbox_pred", bbox_pred_);
  }

 private:
  static Conv2dOptions same_size() {
    Conv2dOptions options;
    options.padding = 1;
    options.relu = true;
    return options;
  }

  nn::Conv2d conv_;
  nn::Conv2d cls_logits_;
  nn::Conv2d bbox_pred_;
};

// Pooled regions [K, h, w, C] -> class logits [K, classes] and box deltas of each class [K, 4 classes], by two hidden layers.
// Names as in torchvision, below "roi_heads".
class BoxHead : public nn::Module {
 public:
  BoxHead(std::int64_t in, std::int64_t hidden, std::int64_t classes, double dropout, const HeadInit& init = {})
      : fc6_(in, hidden, true, init.hidden),
        fc7_(hidden, hidden, true, init.hidden),
        drop6_(dropout),
        drop7_(dropout),
        cls_score_(hidden, classes, false, init.cls_score),
        bbox_pred_(hidden, 4 * classes, false, init.bbox_pred) {}

  Tensors forward(const Tensors& in) override {
    const Tensor x = drop7_(fc7_(drop6_(fc6_(flatten(in[0])))));
    return {cls_score_(x), bbox_pred_(x)};
  }

  void visit(nn::Members& members) override {
    members.child("box_head.fc6", fc6_);
    members.child("box_head.fc7", fc7_);
    members.child("box_head.drop6", drop6_);
    members.child("box_head.drop7", drop7_);
    members.child("box_predictor.cls_score", cls_score_);
    members.child("box_predictor.bbox_pred", bbox_pred_);
  }

 private:
  nn::Linear fc6_;
  nn::Linear fc7_;
  nn::Dropout drop6_;
  nn::Dropout drop7_;
  nn::Linear cls_score_;
  nn::Linear bbox_pred_;
};

}  // namespace shrike::models
