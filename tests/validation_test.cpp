// The applications: which images choose the best checkpoint, which it is tested on, and how it looks at them.
#include <algorithm>

#include "apps.hpp"
#include "shrike/data/split.hpp"
#include "shrike/data/voc.hpp"
#include "shrike/io/safetensors.hpp"

using namespace programs;
using Catch::Matchers::Contains;

namespace {

std::string train(const std::string& name, const std::string& more) {
  const Outcome outcome = run("train_frcnn", training(name, more));
  INFO(outcome.text);
  REQUIRE(outcome.status == 0);
  return outcome.text;
}

std::string said(const std::string& app, const std::string& arguments) {
  const Outcome outcome = run(app, arguments);
  INFO(outcome.text);
  REQUIRE(outcome.status == 0);
  return outcome.text;
}

// A run of 9 + 3 + 4 images, the best checkpoint chosen on three.
const std::string& validated() {
  static std::string text;
  static const std::string folder = [] {
    text = train("validated", "--val-fraction 0.25 --max-detections 1000 --epochs 12");
    return workplace().path("validated");
  }();
  INFO(text);
  CHECK_THAT(text, Contains("9 images are trained on, 3 held out of the training set choose the best checkpoint"));
  CHECK_THAT(text, !Contains("chosen on the test set") && !Contains("warning"));
  CHECK_THAT(text, Contains("test set, best.safetensors (step ") && Contains("test set, last.safetensors (step 108)"));
  return folder;
}

}  // namespace

TEST_CASE("a part of the training images chooses the best checkpoint, and the test set is measured once, at the end") {
  const std::string folder = validated();
  const std::string json = bytes(folder + "/test.json");
  CHECK_THAT(json, Contains("\"best\":{\"step\":") && Contains("\"last\":{\"step\":108,\"map_voc07\":"));
  // The figure of the best checkpoint is the one that eval_frcnn has for it.
  said("eval_frcnn", folder + "/best.safetensors --threads 1 --json " + workplace().path("best.json"));
  const std::string measured = bytes(workplace().path("best.json"));
  const std::string area =
      measured.substr(measured.find("\"map_area\":"), measured.find(",\"coco_ap\"") - measured.find("\"map_area\":"));
  CHECK(area != "\"map_area\":0");
  CHECK_THAT(json.substr(0, json.find("\"last\"")), Contains(area));
  CHECK_THAT(said("train_frcnn", "--resume --run " + folder), Contains("test set, last.safetensors (step 108)"));

  CHECK_THAT(train("by_test_set", "--epochs 1"), Contains("best checkpoint is chosen on the test set"));
  CHECK_FALSE(fs::exists(workplace().path("by_test_set/test.json")));
  check_failure(run("train_frcnn", training("bad", "--val-fraction 1.5")), "train_frcnn", "val-fraction 1.5");
  check_failure(run("train_frcnn", training("bad", "--val-fraction 0.5 --val-split test")), "train_frcnn", "one of them");
}

TEST_CASE("an image set chooses the best checkpoint, but not one that is trained on") {
  const Dataset all = read_voc(workplace().data(), "trainval");
  std::string first, second;
  for (std::size_t i = 0; i < 12; ++i) (i < 7 ? first : second) += all.samples[i].id + "\n";
  write_file_atomically(workplace().data() + "/ImageSets/Main/seven.txt", first);
  write_file_atomically(workplace().data() + "/ImageSets/Main/five.txt", second);
  check_failure(run("train_frcnn", training("bad", "--val-split five")), "train_frcnn",
                "5 of its 5 images are training images");
  CHECK_THAT(train("by_set", "--train-split seven --val-split five --epochs 1"),
             Contains("7 images are trained on, 5 choose the best checkpoint") && Contains("test set, best.safetensors"));
  const std::string last = workplace().path("by_set/last.safetensors --threads 1 ");
  CHECK_THAT(said("eval_frcnn", last + "--split five"), !Contains("warning"));
  CHECK_THAT(said("eval_frcnn", last + "--split trainval"),
             Contains("warning: 7 of the 12 images of trainval were trained on"));
  CHECK_THAT(train("overlap", "--test-split five --epochs 1"), Contains("warning: 5 of the 5 images of five were trained on"));
}

TEST_CASE("a run without a better mAP ends when patience does") {
  const std::string text = train("patient", "--lr 0 --no-batch-norm --eval-every 1 --epochs 5 --patience 2");
  CHECK_THAT(text, Contains("of step 12, in 2 evaluations: ended after epoch 3 of 5"));
  CHECK_THAT(said("train_frcnn", "--resume --run " + workplace().path("patient")), Contains("ended after epoch 3 of 5"));
  CHECK_THAT(train("impatient", "--lr 0 --no-batch-norm --eval-every 1 --epochs 3"),
             !Contains("ended after") && Contains("epoch 3 of 3"));
}

TEST_CASE("after --resplit the images held out are measured, and others only with a word of warning") {
  train("resplit", "--resplit 3:1 --split-seed 4 --epochs 1");
  const std::string last = workplace().path("resplit/last.safetensors");
  const auto held_out = split_dataset(read_voc(workplace().data(), "trainval+test"), {3, 1}, 4);
  REQUIRE(held_out[1].samples.size() == 4);
  const Dataset official = read_voc(workplace().data(), "test");
  const auto trained = std::count_if(official.samples.begin(), official.samples.end(), [&](const Sample& sample) {
    return std::any_of(held_out[0].samples.begin(), held_out[0].samples.end(),
                       [&](const Sample& other) { return other.id == sample.id; });
  });
  REQUIRE(trained > 0);
  const std::string text = said("eval_frcnn", last + " --threads 1");
  CHECK_THAT(text, Contains("testing on the 4 images that --resplit 3:1 held out") && !Contains("warning"));
  CHECK_THAT(said("eval_frcnn", last + " --threads 1 --split test"),
             Contains("warning: " + std::to_string(trained) + " of the 4 images of test were trained on"));
  // The same checkpoint as version 0.1 wrote it.
  TensorFile old = load_safetensors(last);
  old.metadata["train.split"] = old.metadata.at("train.resplit");
  for (const char* name : {"train.resplit", "train.val-split", "train.val-fraction", "train.patience", "model.soft-nms",
                           "model.soft-nms-sigma", "progress.since-best"}) {
    REQUIRE(old.metadata.erase(name) == 1);
  }
  save_safetensors(workplace().path("old.safetensors"), old);
  CHECK(said("eval_frcnn", workplace().path("old.safetensors") + " --threads 1") == text);
  // The old name of the ratio.
  check_failure(run("train_frcnn", training("bad", "--split 9:1")), "train_frcnn",
                "--split 9:1: a ratio is given by --resplit now");
  // Elsewhere nobody knows.
  fs::create_directories(workplace().path("moved"));
  old.metadata["train.data"] = workplace().path("moved");
  save_safetensors(workplace().path("moved.safetensors"), old);
  CHECK_THAT(
      said("eval_frcnn", workplace().path("moved.safetensors") + " --threads 1 --split test --data " + workplace().data()),
      Contains("whether some of these images were trained on is not known: "));
}

TEST_CASE("layers are ranked on validation images where there are some") {
  const std::string common =
      " --threads 1 --no-evaluate --calibration-images 4 --sensitivity-layers 1 -o " + workplace().path("q.safetensors") + " ";
  CHECK_THAT(said("qat_frcnn", "--checkpoint " + validated() + "/last.safetensors --max-drop 2" + common),
             Contains("on 3 validation images") && Contains(" +- 0.") && !Contains("no validation images"));
  train("unvalidated", "--epochs 1");
  CHECK_THAT(said("qat_frcnn", "--checkpoint " + workplace().path("unvalidated/last.safetensors") + " --sensitivity" + common),
             Contains("on 8 training images") && Contains("the run had no validation images"));
  // What is chosen by images, and what is measured, are told apart from what is trained on.
  CHECK_THAT(said("qat_frcnn", "--checkpoint " + validated() +
                                   "/last.safetensors --threads 1 --calibration-images 4 "
                                   "--split trainval -o " +
                                   workplace().path("q.safetensors")),
             Contains("warning: 9 of the 12 images of trainval were trained on"));
}

TEST_CASE("images are looked at in another size, mirrored too, and with soft suppression, where that is asked for") {
  const std::string last = validated() + "/last.safetensors --threads 1 ";
  const auto curves = [&](const std::string& more) {  // which have a point for each detection
    said("eval_frcnn", last + more + " --curves " + workplace().path("curves.csv"));
    return bytes(workplace().path("curves.csv"));
  };
  const std::string plain = curves("");
  CHECK((curves("--min-size 64 --soft-nms off") == plain));  // as it was trained
  for (const char* more : {"--min-size 48", "--test-scale 90", "--flip", "--soft-nms linear", "--soft-nms gaussian"}) {
    INFO(more);
    CHECK((curves(more) != plain));
  }
  CHECK((curves("--soft-nms gaussian --soft-nms-sigma 0.1") != curves("--soft-nms gaussian")));
  CHECK(run("eval_frcnn", last + "--soft-nms cubic").status == 2);
  check_failure(run("eval_frcnn", last + "--min-size 64 --max-size 50"), "eval_frcnn",
                "--max-size 50 is less than --min-size 64");
  const std::string detect = last + workplace().data() + "/JPEGImages --no-draw --score 0.0001 -o ";
  said("detect_frcnn", detect + workplace().path("d1"));
  said("detect_frcnn", detect + workplace().path("d2") + " --flip --test-scale 80 --soft-nms gaussian");
  CHECK((bytes(workplace().path("d1/detections.json")) != bytes(workplace().path("d2/detections.json"))));
}
