// qat_frcnn and bench_int8 as a person meets them, on a tiny detector of a few generated shapes.
#include <filesystem>
#include <fstream>

#include "apps.hpp"
#include "shrike/io/safetensors.hpp"

using namespace programs;
using Catch::Matchers::Contains;

TEST_CASE(
    "training with fake-quantize that was killed or stopped goes on to the same detector, but not otherwise than it began") {
  const std::string common = "--mode qat --checkpoint " + trained() + "/best.safetensors --threads 1 --calibration-images 4 " +
                             "--no-evaluate --epochs 3 --lr 0.002 --log-every 1 ";
  const std::string more = GENERATE("--equalize --freeze-after 20", "--observer percentile", "--learned --bias-correction");
  const bool kill = more.front() == '-' && more.find("observer") == std::string::npos;
  INFO(more);
  const auto arguments = [&](const std::string& name) {
    return common + more + " -o " + workplace().path(name) + ".safetensors --run " + workplace().path(name);
  };
  for (const char* name : {"qat_whole", "qat_parts"}) fs::remove_all(workplace().path(name));
  REQUIRE(run("qat_frcnn", arguments("qat_whole")).status == 0);
  CHECK_FALSE(fs::exists(workplace().path("qat_whole/last.safetensors")));
  interrupt("qat_frcnn", "qat_parts", arguments("qat_parts"), arguments("qat_parts") + " --resume", kill);
  CHECK((bytes(workplace().path("qat_parts.safetensors")) == bytes(workplace().path("qat_whole.safetensors"))));
  check_failure(run("qat_frcnn", arguments("qat_parts") + " --resume"), "qat_frcnn", "holds no training to resume");
  check_failure(run("qat_frcnn", "--resume --checkpoint " + trained() + "/best.safetensors"), "qat_frcnn",
                "expected --mode qat");
  check_failure(run("qat_frcnn", common + "--run " + trained()), "qat_frcnn", "--resume goes on with it");
  check_failure(run("qat_frcnn", common + "--resume --run " + trained()), "qat_frcnn", "expected 'shrike-qat-1'");
}

TEST_CASE("a trained detector is quantized in every mode; evaluation and detection read the file like a checkpoint") {
  const std::string best = trained() + "/best.safetensors";
  const std::string common = "--checkpoint " + best + " --threads 1 --calibration-images 6 -o ";
  const auto quantize = [&](const std::string& name, const std::string& more) {
    const Outcome outcome = run("qat_frcnn", common + workplace().path(name) + " " + more);
    INFO(outcome.text);
    CHECK(outcome.status == 0);
    CHECK_THAT(outcome.text, Contains("fusion of backbone") && Contains("conv2d+batch_norm"));
    CHECK((outcome.text.find("mAP (VOC07)") != std::string::npos) == (more.find("--no-evaluate") == std::string::npos));
    CHECK_THAT(outcome.text, Contains("float bytes") && Contains("rpn.head.cls_logits"));
    return outcome.text;
  };
  const std::string fixed =
      quantize("static.safetensors", "--observer minmax --save-calibration " + workplace().path("scales"));
  CHECK_THAT(fixed, Contains("calibrated with 6 images, observer minmax") && Contains("int8 s8 -> u8"));
  // The same scales from the file give the same detector to the bit.
  quantize("again.safetensors", "--calibration " + workplace().path("scales"));
  CHECK((bytes(workplace().path("again.safetensors")) == bytes(workplace().path("static.safetensors"))));
  const std::string corrected = quantize("corrected.safetensors", "--observer minmax --bias-correction");
  CHECK_THAT(corrected, Contains("bias correction\nbackbone.0 ") && Contains("mean error of a channel"));
  CHECK((bytes(workplace().path("corrected.safetensors")) != bytes(workplace().path("static.safetensors"))));
  const std::string equalized = quantize("equalized.safetensors", "--observer minmax --equalize");
  CHECK_THAT(equalized, Contains("backbone.0 -> ") && Contains("roi_heads.box_head.fc6 -> roi_heads.box_head.fc7  equalised") &&
                            Contains("kept: its output is read 2 times"));
  // What is within any drop is all int8, and the layers are as they were; with nothing lost it ends one way or the other.
  const std::string by_layer = " --sensitivity-images 3 --sensitivity-layers 2 --observer minmax ";
  const std::string ranked = quantize("ranked.safetensors", "--sensitivity --max-drop 2" + by_layer);
  CHECK_THAT(ranked, Contains("SQNR (dB)") && Contains("roi_heads.box_head.fc7 ") && Contains("on 3 training images") &&
                         Contains("met with 0 layer(s) in float"));
  CHECK((bytes(workplace().path("ranked.safetensors")) == bytes(workplace().path("static.safetensors"))));
  const std::string unreachable =
      quantize("unreachable.safetensors", "--no-evaluate --max-drop 0 --bias-correction" + by_layer);
  CHECK_THAT(unreachable, Contains("met with ") || Contains("not met; the best is with "));
  for (const char* observer : {"moving-average", "percentile", "entropy", "mse"}) {
    quantize("other.safetensors", std::string("--no-evaluate --first-float --keep-float 'roi_heads.*' --observer ") + observer);
  }
  CHECK_THAT(quantize("weight-only.safetensors", "--mode weight-only --weights f16"),
             Contains("weights f16, computed in float"));
  CHECK_THAT(quantize("dynamic.safetensors", "--mode dynamic --first-float --weight-observer mse"),
             Contains("dynamic u8 -> f32") && Contains("float: first layer") && Contains("float: predictor"));
  CHECK_THAT(quantize("half.safetensors", "--mode half"), Contains("half f16 -> f16") && Contains("half f16 -> f32"));
  const std::string training_on = "--mode qat --epochs 1 --lr 0.001 --log-every 1 --run ";
  const std::string learned = quantize("qat.safetensors", training_on + workplace().path("qat") + " --learned");
  CHECK_THAT(learned, Contains("training 1 epoch(s)") && Contains("loss"));
  CHECK(fs::exists(workplace().path("qat/metrics.jsonl")));
  quantize("frozen.safetensors", training_on + workplace().path("frozen") + " --freeze-after 3");
  quantize("frozen2.safetensors", training_on + workplace().path("frozen2") + " --freeze-after 3");
  CHECK((bytes(workplace().path("frozen.safetensors")) == bytes(workplace().path("frozen2.safetensors"))));
  CHECK((bytes(workplace().path("frozen.safetensors")) != bytes(workplace().path("static.safetensors"))));

  for (const char* name : {"static", "dynamic", "weight-only", "half", "qat"}) {
    const std::string file = workplace().path(std::string(name) + ".safetensors");
    const Outcome measured = run("eval_frcnn", file);
    INFO(measured.text);
    CHECK(measured.status == 0);
    CHECK_THAT(measured.text, Contains("VOC07 AP") && Contains("circle"));
    const Outcome found = run("detect_frcnn", file + " " + workplace().data() + "/JPEGImages --no-draw --score 0.0001 -o " +
                                                  workplace().path("found_int8"));
    INFO(found.text);
    CHECK(found.status == 0);
    CHECK_THAT(bytes(workplace().path("found_int8/detections.json")), Contains("\"box\":["));
  }
  // A whole detector's weights in a quarter of the bytes, and a little for scales, graphs and predictors.
  CHECK(fs::file_size(workplace().path("static.safetensors")) < fs::file_size(best));

  const auto refused = [&](const std::string& arguments, const std::string& part) {
    check_failure(run("qat_frcnn", arguments + " --no-evaluate"), "qat_frcnn", part);
  };
  refused("--checkpoint " + best + " -o " + workplace().path("never") + " --calibration-images 0", "no calibration images");
  refused(common + workplace().path("never") + " --observer guess", "observer 'guess'");
  refused(common + workplace().path("never") + " --calibration /no/such/file", "/no/such/file");
  refused(common + workplace().path("never") + " --equalize --calibration " + workplace().path("scales"), "other weights");
  refused("--checkpoint " + best + " -o " + workplace().path("never") + " --sensitivity --calibration-images 12",
          "12 in the training set");
  refused(common + workplace().path("never") + " --mode dynamic --equalize", "mode dynamic finds no scales");
  refused(common + workplace().path("never") + " --mode dynamic --weights f16", "--weights f16 is for --mode weight-only");
  TensorFile other = load_safetensors(best);
  other.tensors.at("backbone.0.weight").data<float>()[0] += 0.5f;
  save_safetensors(workplace().path("other_weights.safetensors"), other);
  refused("--checkpoint " + workplace().path("other_weights.safetensors") + " --calibration " + workplace().path("scales"),
          "other weights");
  refused("--checkpoint " + workplace().path("static.safetensors"), "quantized already");
  CHECK(run("qat_frcnn", "--checkpoint " + best + " --mode sideways").status == 2);
  CHECK_FALSE(fs::exists(workplace().path("never")));
}

TEST_CASE("float and int8 are timed side by side, as a table and as JSON") {
  const std::string best = trained() + "/best.safetensors", int8 = workplace().path("timed.safetensors");
  const std::string common = " --size 64x96 --runs 3 --threads 1 --json " + workplace().path("bench.json");
  REQUIRE(run("qat_frcnn", "--checkpoint " + best + " --no-evaluate --calibration-images 2 -o " + int8).status == 0);
  for (const std::string& arguments :
       {"--checkpoint " + best + " --quantized " + int8, "--checkpoint " + best, "--checkpoint " + best + " --dynamic",
        std::string("--backbone resnet18 --width 4 --batch-norm")}) {
    const bool dynamic = arguments.find("--dynamic") != std::string::npos;
    const Outcome outcome = run("bench_int8", arguments + common);
    INFO(outcome.text);
    CHECK(outcome.status == 0);
    CHECK_THAT(outcome.text, Contains("detector") && Contains("roi_heads.box_head.fc6") &&
                                 Contains(dynamic ? "backbone.dynamic_quantize" : "backbone.quantize"));
    CHECK_THAT(outcome.text, !Contains("fp16"));  // the CPU has no arithmetic of halves
    CHECK_THAT(outcome.text, Contains("gemm ") && Contains("direct ") && Contains("% of the ceiling"));
    CHECK_THAT(bytes(workplace().path("bench.json")),
               Contains("\"int8\":{\"detector\":{\"median_ms\":") &&
                   Contains(dynamic ? "\"op\":\"dynamic_conv2d\"" : "\"op\":\"quantized_conv2d\"") && Contains("\"p99_ms\"") &&
                   Contains("\"kernel\":\"direct ") && Contains("\"share_of_ceiling\""));
  }
  check_failure(run("bench_int8", "--size 64" + common.substr(13)), "bench_int8", "size '64'");
  check_failure(run("bench_int8", "--quantized " + int8 + common), "bench_int8", "--checkpoint");
  check_failure(run("bench_int8", "--checkpoint " + int8 + common), "bench_int8", "is quantized");
  check_failure(run("bench_int8", "--checkpoint " + best + " --quantized " + best + common), "bench_int8", "qat_frcnn");
  const std::string half = workplace().path("timed_half.safetensors");
  REQUIRE(run("qat_frcnn", "--checkpoint " + best + " --no-evaluate --mode half -o " + half).status == 0);
  check_failure(run("bench_int8", "--checkpoint " + best + " --quantized " + half + common), "bench_int8", "mode half");
}
