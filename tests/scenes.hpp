// The random scenes of the evaluation goldens (tests/golden/eval_golden.py).
#pragma once

#include "golden.hpp"
#include "shrike/eval/coco.hpp"

namespace shrike {

struct Scene {
  std::string name;  // "scene0"; also before what is expected of it
  int classes;
  std::vector<std::vector<Object>> truth;
  std::vector<std::vector<Detection>> found;
};

// All of a golden file's. VOC knows no crowds, which are left out for it; COCO no difficult objects, which are usual ones
// there.
inline std::vector<Scene> scenes(const Golden& golden, bool coco) {
  std::vector<Scene> result;
  while (golden.has(message("scene", result.size(), ".sizes"))) {
    Scene scene{message("scene", result.size()), 0, {}, {}};
    const auto sizes = golden.values<int>(scene.name + ".sizes");
    scene.classes = sizes[1];
    scene.truth.resize(static_cast<std::size_t>(sizes[0]));
    scene.found.resize(scene.truth.size());
    const auto o = golden.values<float>(scene.name + ".objects");
    for (std::size_t i = 0; i < o.size(); i += 8) {
      const bool difficult = o[i + 2] != 0, crowd = o[i + 3] != 0;
      if (crowd && !coco) continue;
      scene.truth[static_cast<std::size_t>(o[i])].push_back(
          {{o[i + 4], o[i + 5], o[i + 6], o[i + 7]}, static_cast<int>(o[i + 1]), difficult && !coco, crowd});
    }
    const auto d = golden.values<float>(scene.name + ".detections");
    for (std::size_t i = 0; i < d.size(); i += 7) {
      scene.found[static_cast<std::size_t>(d[i])].push_back(
          {{d[i + 3], d[i + 4], d[i + 5], d[i + 6]}, static_cast<int>(d[i + 1]), d[i + 2]});
    }
    result.push_back(std::move(scene));
  }
  return result;
}

}  // namespace shrike
