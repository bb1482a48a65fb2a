#include <cmath>
#include <limits>

#include "catch.hpp"
#include "scenes.hpp"
#include "shrike/core/random.hpp"
#include "shrike/eval/voc.hpp"

using namespace shrike;

namespace {

const Box here{10, 10, 30, 40};
const Box elsewhere{100, 100, 130, 140};

Object object(const Box& box, bool difficult = false) { return {box, 1, difficult, false}; }
Detection detection(const Box& box, float score) { return {box, 1, score}; }

double ap_of(const std::vector<std::vector<Object>>& truth, const std::vector<std::vector<Detection>>& found, bool eleven) {
  return voc_ap(truth, found, 2, {0.5, eleven}).mean;
}

}  // namespace

TEST_CASE("VOC average precision is the development kit's on random scenes") {
  const Golden golden("eval_golden.txt");
  const auto all = scenes(golden, false);
  CHECK(all.size() == 4);
  for (const auto& [name, classes, truth, found] : all) {
    for (const char* threshold : {"0.5", "0.7"}) {
      const auto expected = golden.values(name + ".voc" + threshold);
      double sum[2] = {};
      int counted = 0;
      for (const bool eleven : {true, false}) {
        const VocAp result = voc_ap(truth, found, classes, {std::stod(threshold), eleven});
        REQUIRE(3 * result.classes.size() == expected.size());
        for (std::size_t c = 0; c < result.classes.size(); ++c) {
          INFO(name << " class " << c + 1 << " at " << threshold);
          const double ap = expected[3 * c + (eleven ? 1 : 2)];
          CHECK(static_cast<double>(result.classes[c].objects) == expected[3 * c]);
          if (std::isnan(ap)) {
            CHECK(std::isnan(result.classes[c].ap));
          } else {
            CHECK(result.classes[c].ap == Approx(ap).epsilon(1e-10).margin(1e-12));
            sum[eleven] += ap;
            counted += eleven;
          }
        }
        if (eleven) CHECK(result.mean == Approx(sum[1] / counted));
        if (!eleven) CHECK(result.mean == Approx(sum[0] / counted));
      }
    }
  }
}

TEST_CASE("an overlap of just the threshold is a match by the development kit's rule, none by py-faster-rcnn's") {
  const std::vector<std::vector<Object>> truth = {{object({0, 0, 10, 10})}};
  const std::vector<std::vector<Detection>> half = {{detection({0, 0, 10, 5}, 0.5f)}},
                                            more = {{detection({0, 0, 10, 6}, 0.5f)}};
  CHECK(voc_ap(truth, half, 2, {0.5, true, true}).mean == 1);
  CHECK(voc_ap(truth, half, 2, {0.5, true, false}).mean == 0);
  CHECK(voc_ap(truth, more, 2, {0.5, true, false}).mean == 1);
  CHECK(voc_ap(truth, more, 2, {0.6, true, false}).mean == 0);
}

TEST_CASE("weights of images are as many copies of them, and the interval lies around the measure") {
  const Golden golden("eval_golden.txt");
  Random random(8, RandomStream::test);
  for (const auto& [name, classes, truth, as_found] : scenes(golden, false)) {
    auto found = as_found;
    for (auto& image : found) {
      for (Detection& detection : image)
        detection.score += random.uniform(0, 1e-3f);  // no ties, whose order copies would change
    }
    for (const bool eleven : {true, false}) {
      const VocApOptions options{0.5, eleven};
      std::vector<int> weights(truth.size());
      std::vector<std::vector<Object>> more_truth;
      std::vector<std::vector<Detection>> more_found;
      for (std::size_t i = 0; i < truth.size(); ++i) {
        weights[i] = static_cast<int>(random.below(4));
        for (int k = 0; k < weights[i]; ++k) more_truth.push_back(truth[i]), more_found.push_back(found[i]);
      }
      const std::vector<int> once(truth.size(), 1);
      const auto means = voc_means(truth, found, classes, {weights, once}, options);
      const double expected = voc_ap(more_truth, more_found, classes, options).mean,
                   plain = voc_ap(truth, found, classes, options).mean;
      INFO(name << (eleven ? ", eleven points: " : ", area: ") << means[0] << " " << expected);
      CHECK((means[0] == Approx(expected).epsilon(1e-12) || (std::isnan(means[0]) && std::isnan(expected))));
      CHECK(means[1] == plain);
      const Interval interval = voc_interval(truth, found, classes, options);
      CHECK(interval.low <= plain);
      CHECK(interval.high >= plain);
      CHECK(interval.low < interval.high);
    }
  }
  CHECK(std::isnan(voc_interval({{}}, {{}}, 3).low));
  CHECK_THROWS_WITH(voc_means({{}}, {{}}, 3, {{1, 1}}), Catch::Contains("2 weights for 1 images"));
}

TEST_CASE("the difference of two detectors is taken on the same draws of images") {
  const Golden golden("eval_golden.txt");
  Random random(9, RandomStream::test);
  for (const auto& [name, classes, truth, as_found] : scenes(golden, false)) {
    INFO(name);
    auto found = as_found;
    for (auto& image : found) {
      for (Detection& detection : image) detection.score += random.uniform(0, 1e-3f);  // no ties, as above
    }
    const PairedDifference same = voc_difference(truth, found, found, classes);
    CHECK((same.mean == 0 && same.deviation == 0));

    auto worse = found;
    for (auto& image : worse) {
      for (Detection& detection : image) detection.score *= random.uniform(0.2f, 1);
    }
    const PairedDifference all = voc_difference(truth, found, worse, classes);
    CHECK(all.mean == Approx(voc_ap(truth, worse, classes).mean - voc_ap(truth, found, classes).mean).epsilon(1e-12));
    CHECK(all.deviation > 0);
    CHECK(all.error() == Approx(1.96 * all.deviation));

    // The first two draws, by copies of the images.
    Random draw(1, RandomStream::bootstrap);
    const auto drawn_difference = [&] {
      std::vector<int> times(truth.size());
      for (std::size_t i = 0; i < truth.size(); ++i) ++times[draw.below(static_cast<std::uint32_t>(truth.size()))];
      const auto copies = [&](const auto& images) {
        std::decay_t<decltype(images)> result;
        for (std::size_t i = 0; i < times.size(); ++i)
          result.insert(result.end(), static_cast<std::size_t>(times[i]), images[i]);
        return result;
      };
      const auto drawn = copies(truth);
      return voc_ap(drawn, copies(worse), classes).mean - voc_ap(drawn, copies(found), classes).mean;
    };
    const double first = drawn_difference(), second = drawn_difference();
    CHECK(voc_difference(truth, found, worse, classes, {}, 2).deviation ==
          Approx(std::abs(first - second) / std::sqrt(2)).margin(1e-9));
  }
  CHECK(std::isnan(voc_difference({{}}, {{}}, {{}}, 3).mean));
}

TEST_CASE("a second detection of an object is wrong, the first is the one of higher score") {
  CHECK(ap_of({{object(here)}}, {{detection(here, 0.9f), detection(here, 0.8f)}}, false) == 1.0);
  const VocAp result = voc_ap({{object(here), object(elsewhere)}},
                              {{detection(elsewhere, 0.7f), detection(here, 0.8f), detection(here, 0.9f)}}, 2);
  CHECK(result.classes[0].precision == std::vector<double>{1.0, 0.5, 2.0 / 3});
  CHECK(result.classes[0].recall == std::vector<double>{0.5, 0.5, 1.0});
  CHECK(result.classes[0].score == std::vector<float>{0.9f, 0.8f, 0.7f});
}

TEST_CASE("a detection whose best object is taken does not fall back on another") {
  const Box beside{10, 12, 30, 42};
  const auto found = std::vector<std::vector<Detection>>{{detection(here, 0.9f), detection({10, 10, 30, 40.5f}, 0.8f)}};
  const VocAp result = voc_ap({{object(here), object(beside)}}, found, 2);
  CHECK(result.classes[0].recall == std::vector<double>{0.5, 0.5});
}

TEST_CASE("difficult objects neither count nor punish") {
  const auto found =
      std::vector<std::vector<Detection>>{{detection(elsewhere, 0.9f), detection(elsewhere, 0.85f), detection(here, 0.8f)}};
  const VocAp result = voc_ap({{object(here), object(elsewhere, true)}}, found, 2);
  CHECK(result.mean == Approx(1));
  CHECK(result.classes[0].objects == 1);
  CHECK(result.classes[0].detections == 3);
  CHECK(result.classes[0].precision == std::vector<double>{1.0});
}

TEST_CASE("equal scores keep their input order") {
  const std::vector<std::vector<Object>> truth{{object(here)}, {}};
  CHECK(ap_of(truth, {{detection(here, 0.5f), detection(elsewhere, 0.5f)}, {}}, false) == 1.0);
  CHECK(ap_of(truth, {{detection(elsewhere, 0.5f), detection(here, 0.5f)}, {}}, false) == 0.5);
  CHECK(ap_of({truth[1], truth[0]}, {{detection(here, 0.5f)}, {detection(here, 0.5f)}}, false) == 0.5);
}

TEST_CASE("an overlap of exactly the threshold is enough") {
  CHECK(ap_of({{object({0, 0, 10, 10})}}, {{detection({0, 0, 10, 5}, 1)}}, true) == Approx(1));
  CHECK(ap_of({{object({0, 0, 10, 10})}}, {{detection({0, 0, 10, 4.99f}, 1)}}, true) == 0.0);
}

TEST_CASE("the eleven thresholds are multiples of 0.1 in double precision") {
  // 3 of 10 objects: recall 0.3 reaches 0, 0.1 and 0.2, but 3 * 0.1 is above 0.3.
  std::vector<Object> objects;
  std::vector<Detection> found;
  for (int i = 0; i < 10; ++i) {
    const float x = 50.0f * static_cast<float>(i);
    objects.push_back(object({x, 0, x + 20, 20}));
    if (i < 3) found.push_back(detection(objects.back().box, 0.9f));
  }
  CHECK(ap_of({objects}, {found}, true) == Approx(3.0 / 11));
  CHECK(ap_of({objects}, {found}, false) == Approx(0.3));
}

TEST_CASE("classes without objects are left out of the mean and shown as -") {
  const VocAp result = voc_ap({{object(here)}}, {{detection(here, 0.5f), {here, 3, 0.5f}}}, 4);
  CHECK(result.mean == Approx(1));
  CHECK(std::isnan(result.classes[1].ap));
  CHECK(std::isnan(result.classes[2].ap));
  CHECK(to_table(result, {"cat", "dog", "dining table"}) ==
        "class            objects  detections  recall  AP (11 points)\n"
        "cat                    1           1  1.0000          1.0000\n"
        "dog                    0           0       -               -\n"
        "dining table           0           1       -               -\n"
        "mean of 1 class        1           2                  1.0000\n");
  CHECK(std::isnan(voc_ap({{}}, {{}}, 3).mean));
  CHECK(voc_ap({{object(here)}}, {{}}, 2).mean == 0.0);
  CHECK(std::isnan(voc_ap({}, {}, 2).mean));
}

TEST_CASE("curves are written as CSV and as a picture") {
  const VocAp result = voc_ap({{object(here)}}, {{detection(here, 0.5f), detection(elsewhere, 0.25f)}}, 2);
  CHECK(curves_csv(result, {"a \"b\", c"}) ==
        "class,score,precision,recall\n"
        "\"a \"\"b\"\", c\",0.5,1.000000,1.000000\n"
        "\"a \"\"b\"\", c\",0.25,0.500000,1.000000\n");
  const std::string svg = curves_svg(result, {"a<b"});
  CHECK_THAT(svg, Catch::Matchers::StartsWith("<svg ") && Catch::Matchers::EndsWith("</svg>\n"));
  CHECK_THAT(svg,
             Catch::Matchers::Contains("points=\"450.0,20.0 450.0,220.0 \"") && Catch::Matchers::Contains("a&lt;b 1.0000"));
}

TEST_CASE("senseless detections are refused by image and value") {
  using Catch::Matchers::Contains;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(voc_ap({{}, {}}, {{}}, 2), Contains("2 images") && Contains("of 1"));
  CHECK_THROWS_WITH(voc_ap({{}, {}}, {{}, {{here, 2, 0.5f}}}, 2), Contains("image 1") && Contains("label 2"));
  CHECK_THROWS_WITH(voc_ap({{{here, 0}}}, {{}}, 2), Contains("label 0"));
  CHECK_THROWS_WITH(voc_ap({{}}, {{detection(here, nan)}}, 2), Contains("score nan"));
  CHECK_THROWS_WITH(voc_ap({{}}, {{detection({0, 0, nan, 1}, 1)}}, 2), Contains("not finite"));
  CHECK_THROWS_WITH(to_table(voc_ap({}, {}, 3), {"cat"}), Contains("label 2"));
}
