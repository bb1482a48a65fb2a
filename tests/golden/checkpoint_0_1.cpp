// Writes checkpoint_0_1.safetensors and checkpoint_0_1.txt, a small detector of version 0.1 (commit 3ed82f6) and what that
// version found with it on random images. Built against that version's headers, tests/reference.hpp and library:
//   checkpoint_0_1 FOLDER
#include <cstdio>
#include "apps/checkpoint.hpp"
#include "apps/quantized.hpp"
#include "models/detector.hpp"
#include "reference.hpp"
using namespace shrike;
int main(int argc, char** argv) {
  const std::string out = argv[1];
  models::DetectorConfig c;
  c.backbone = "resnet18";
  c.width = 2;
  c.head_width = 8;
  c.roi_size = 3;
  c.anchor_sizes = {16, 32};
  c.classes = {"a", "b"};
  c.test_pre_nms = 200;
  c.test_post_nms = 30;
  c.score_threshold = 0.05;
  c.batch_norm = false;
  const auto m = models::make_detector(c);
  nn::initialize(*m, 7);
  for (auto& [name, t] : nn::named_parameters(*m)) {
    const float f = name.find("box_predictor.cls") != std::string::npos || name.find("cls_logits") != std::string::npos ? 60
                    : name.find("bbox_pred") != std::string::npos                                                       ? 10
                    : name.find("backbone") != std::string::npos && t.rank() > 1                                        ? 2.4f
                                                                                                                        : 1;
    for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] *= f;
  }
  apps::TrainConfig tc;
  tc.model = c;
  apps::save_checkpoint(out + "/checkpoint_0_1.safetensors", *m, nullptr, tc, {});
  const auto loaded = apps::load_detector(load_safetensors(out + "/checkpoint_0_1.safetensors"));
  FILE* f = std::fopen((out + "/checkpoint_0_1.txt").c_str(), "w");
  for (auto [h, w] : {std::pair{71, 93}, {97, 66}, {80, 96}}) {
    Random random(static_cast<std::uint64_t>(h), RandomStream::test);
    const Tensor image = reference::random_tensor({1, h, w, 3}, random);
    const auto found = loaded.model->detect(image, {{h, w}})[0];
    std::fprintf(f, "image %d %d %zu\n", h, w, found.size());
    printf("%zu\n", found.size());
    for (const auto& d : found)
      std::fprintf(f, "%d %.9g %.9g %.9g %.9g %.9g\n", d.label, d.score, d.box.x1, d.box.y1, d.box.x2, d.box.y2);
  }
}
