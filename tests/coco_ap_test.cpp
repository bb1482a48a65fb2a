#include <cmath>

#include "catch.hpp"
#include "scenes.hpp"

using namespace shrike;

namespace {

std::vector<double> all_of(const CocoScores& s) {
  return {s.ap,  s.ap50, s.ap75,  s.ap_small, s.ap_medium, s.ap_large,
          s.ar1, s.ar10, s.ar100, s.ar_small, s.ar_medium, s.ar_large};
}

void check_scores(const CocoScores& scores, const double* expected) {
  const auto found = all_of(scores);
  for (std::size_t i = 0; i < found.size(); ++i) {
    INFO("number " << i);
    if (std::isnan(expected[i])) {
      CHECK(std::isnan(found[i]));
    } else {
      CHECK(found[i] == Approx(expected[i]).epsilon(1e-9).margin(1e-12));
    }
  }
}

}  // namespace

TEST_CASE("COCO average precision and recall are pycocotools' on random scenes") {
  const Golden golden("eval_golden.txt");
  const auto all = scenes(golden, true);
  CHECK(all.size() == 4);
  for (const auto& [name, classes, truth, found] : all) {
    const CocoAp result = coco_ap(truth, found, classes);
    const auto expected = golden.values(name + ".coco");
    REQUIRE(expected.size() == 12 * (result.classes.size() + 1));
    for (std::size_t c = 0; c < result.classes.size(); ++c) {
      INFO(name << " class " << c + 1);
      check_scores(result.classes[c].scores, expected.data() + 12 * c);
    }
    INFO(name << " mean");
    check_scores(result.mean, expected.data() + 12 * result.classes.size());
  }
}

TEST_CASE("crowds take any number of detections, difficult objects one, and none of them counts") {
  const Box wide{0, 0, 200, 100};
  const Box inner{20, 20, 60, 60};
  const Box other{300, 300, 350, 350};
  const std::vector<Detection> found{{inner, 1, 0.9f}, {{100, 20, 150, 80}, 1, 0.8f}, {other, 1, 0.7f}};
  const std::vector<Object> crowd{{wide, 1, false, true}, {other, 1, false, false}};
  CHECK(coco_ap({crowd}, {found}, 2).mean.ap == Approx(1));
  CHECK(coco_ap({crowd}, {found}, 2).classes[0].objects == 1);
  const std::vector<Object> difficult{{inner, 1, true, false}, {other, 1, false, false}};
  const std::vector<Detection> twice{{inner, 1, 0.9f}, {inner, 1, 0.8f}, {other, 1, 0.7f}};
  CHECK(coco_ap({difficult}, {{twice[0], twice[2]}}, 2).mean.ap == Approx(1));
  CHECK(coco_ap({difficult}, {twice}, 2).mean.ap == Approx(0.5));
}

TEST_CASE("the COCO table is aligned, with - for what has no objects") {
  const Box box{0, 0, 50, 50};
  const CocoAp result = coco_ap({{{box, 1}}, {}}, {{{box, 1, 0.5f}}, {{box, 2, 0.5f}}}, 3);
  CHECK(to_table(result, {"cat", "dog"}) ==
        "class            objects  detections      AP    AP50    AP75  APs     APm  APl     AR1    AR10   AR100  ARs     ARm  "
        "ARl\n"
        "cat                    1           1  1.0000  1.0000  1.0000    -  1.0000    -  1.0000  1.0000  1.0000    -  1.0000   "
        " -\n"
        "dog                    0           1       -       -       -    -       -    -       -       -       -    -       -   "
        " -\n"
        "mean of 1 class        1           2  1.0000  1.0000  1.0000    -  1.0000    -  1.0000  1.0000  1.0000    -  1.0000   "
        " -\n");
  CHECK(std::isnan(coco_ap({}, {}, 2).mean.ap));
  CHECK(coco_ap({{{box, 1}}}, {{}}, 2).mean.ar100 == 0.0);
  CHECK_THROWS_WITH(coco_ap({{}}, {{{box, 3, 0.5f}}}, 3), Catch::Matchers::Contains("label 3"));
}
