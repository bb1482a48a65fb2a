// The applications as a person meets them: exit status, messages, files. Trains a tiny detector on a few generated shapes.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "apps.hpp"
#include "models/detector.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/io/safetensors.hpp"

using namespace programs;
using Catch::Matchers::Contains;

namespace {

// The trained run that several tests look at.
const std::string& trained() {
  static const std::string folder = [] {
    const Outcome outcome = run("train_frcnn", training("trained", "--save-every 5"));
    INFO(outcome.text);
    REQUIRE(outcome.status == 0);
    return workplace().path("trained");
  }();
  return folder;
}

// Runs an application that trains in the folder `name`, interrupts it three times, each when it has got further, and lets it
// end; with `resume` from when its checkpoint is there.
void interrupt(const std::string& app, const std::string& name, std::string arguments, const std::string& resume, bool kill) {
  const std::string folder = workplace().path(name);
  int interruptions = 0;
  for (;;) {
    sigset_t term, before;  // held back until the child has left the test framework's handler behind
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGTERM, SIG_DFL);
      sigprocmask(SIG_SETMASK, &before, nullptr);
      freopen("/dev/null", "w", stderr);
      freopen("/dev/null", "w", stdout);
      execl("/bin/sh", "sh", "-c", ("exec " + binary(app) + " " + arguments).c_str(), nullptr);
      _exit(127);
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
    const bool stop = interruptions < 3;
    if (stop) {  // once it has got further than the last time
      for (int waited = 0; waited < 60000 && waitpid(child, nullptr, WNOHANG) == 0; ++waited) {
        std::error_code error;
        const auto size = fs::file_size(folder + "/metrics.jsonl", error);
        if (!error && size > static_cast<std::uintmax_t>(200 * (1 + 3 * interruptions))) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ::kill(child, kill ? SIGKILL : SIGTERM);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!stop) {
      REQUIRE(WIFEXITED(status));
      REQUIRE(WEXITSTATUS(status) == 0);
      return;
    }
    if (!kill && WIFEXITED(status)) CHECK((WEXITSTATUS(status) == 128 + SIGTERM || WEXITSTATUS(status) == 0));
    ++interruptions;
    if (fs::exists(folder + "/last.safetensors")) arguments = resume;
  }
}

}  // namespace

TEST_CASE("training leaves checkpoints, logs and its configuration; evaluation and detection read them") {
  const std::string folder = trained();
  for (const char* file : {"last.safetensors", "best.safetensors", "config.toml", "metrics.jsonl"}) {
    INFO(file);
    CHECK(fs::exists(folder + "/" + file));
  }
  const Outcome measured = run("eval_frcnn", folder + "/best.safetensors --json " + workplace().path("eval.json"));
  INFO(measured.text);
  CHECK(measured.status == 0);
  CHECK_THAT(measured.text, Contains("VOC07 AP") && Contains("circle") && Contains("mean"));
  CHECK_THAT(bytes(workplace().path("eval.json")), Contains("\"map_voc07\""));

  const Outcome found = run("detect_frcnn", folder + "/best.safetensors " + workplace().data() +
                                                "/JPEGImages --score 0.0001 -o " + workplace().path("found"));
  INFO(found.text);
  CHECK(found.status == 0);
  CHECK_THAT(bytes(workplace().path("found/detections.json")), Contains("\"box\":["));
  std::size_t pictures = 0;
  for (const auto& entry : fs::directory_iterator(workplace().path("found"))) pictures += entry.path().extension() == ".png";
  CHECK(pictures == 16);
}

TEST_CASE(
    "a preset for any data trains from torchvision's ResNet by its own names, and from nothing with frozen stages not at all") {
  // Random weights of the published width, as torchvision's state_dict() has them.
  models::DetectorConfig config;
  config.backbone = "resnet18";
  config.batch_norm = true;
  config.head = "res5";
  config.classes = {"a"};
  const auto model = models::make_detector(config);
  nn::initialize(*model, 2);
  TensorFile file;
  for (const auto& [name, tensor] : nn::named_state(*model)) {
    const std::size_t prefix = name.starts_with("backbone.") ? 9 : name.starts_with("roi_heads.box_head.") ? 19 : 0;
    if (prefix > 0) file.tensors[name.substr(prefix)] = tensor.rank() == 4 ? permute(tensor, {0, 3, 1, 2}) : tensor;
  }
  file.tensors["fc.weight"] = zeros({1000, 512});
  const std::string weights = workplace().path("resnet18.safetensors");
  save_safetensors(weights, file);
  const std::string arguments = "--preset resnet18 --data " + workplace().data() + " --run " + workplace().path("own") +
                                " --epochs 1 --head-width 16 --min-size 64 --max-size 96 --threads 1 ";
  check_failure(run("train_frcnn", arguments), "train_frcnn", "--frozen-stages 2 without --weights");
  CHECK_FALSE(fs::exists(workplace().path("own/last.safetensors")));
  const Outcome trained = run("train_frcnn", arguments + "--no-batch-norm --weights " + weights);
  INFO(trained.text);
  CHECK(trained.status == 0);
  CHECK_THAT(trained.text, Contains("has batch norm, so has the detector") && Contains("75 of 89 tensors") &&
                               Contains("without use here: fc, layer4") && Contains("moved from the start"));
  CHECK_THAT(bytes(workplace().path("own/config.toml")), Contains("norm = 'frozen'") && Contains("head = 'fc'"));
  CHECK(run("eval_frcnn", workplace().path("own/last.safetensors") + " --score-threshold 0.5").status == 0);
  CHECK(run("eval_frcnn", workplace().path("own/last.safetensors") + " --score-threshold 2").status != 0);

  // The same with layer4 as the head, through int8.
  const std::string res5 = workplace().path("res5"), int8 = res5 + "/int8.safetensors";
  const Outcome with_head =
      run("train_frcnn", arguments + "--weights " + weights + " --head res5 --head-width 0 --roi-size 4 " +
                             "--roi-batch 8 --test-post-nms 8 --run " + res5);
  INFO(with_head.text);
  CHECK(with_head.status == 0);
  CHECK_THAT(with_head.text, Contains("100 of 110 tensors") && Contains("without use here: fc\n") && Contains("layer4 "));
  const std::string last = "--checkpoint " + res5 + "/last.safetensors --threads 1 ";
  CHECK(run("qat_frcnn", last + "--no-evaluate --calibration-images 2 -o " + int8).status == 0);
  CHECK_THAT(run("bench_int8", last + "--size 64x96 --runs 1 --quantized " + int8).text,
             Contains("roi_heads.box_head.layer4.1.conv2") && Contains("avg_pool2d"));
}

TEST_CASE("two runs, and a run by the configuration that the first wrote, give the same weights to the bit") {
  const std::string expected = bytes(trained() + "/last.safetensors");
  REQUIRE(run("train_frcnn", training("again", "--save-every 5")).status == 0);
  CHECK((bytes(workplace().path("again/last.safetensors")) == expected));
  REQUIRE(run("train_frcnn", "--config " + trained() + "/config.toml --run " + workplace().path("by_config")).status == 0);
  CHECK((bytes(workplace().path("by_config/last.safetensors")) == expected));
}

TEST_CASE("a run that was killed or stopped goes on to the same weights") {
  const bool kill = GENERATE(true, false);
  const std::string name = kill ? "killed" : "stopped";
  interrupt("train_frcnn", name, training(name, "--save-every 5"), "--resume --run " + workplace().path(name), kill);
  CHECK((bytes(workplace().path(name) + "/last.safetensors") == bytes(trained() + "/last.safetensors")));
}

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

TEST_CASE("a run that is there is not overwritten, and one that is not there is not resumed") {
  const std::string before = bytes(trained() + "/last.safetensors");
  check_failure(run("train_frcnn", training("trained")), "train_frcnn", "holds a run already");
  CHECK((bytes(trained() + "/last.safetensors") == before));
  check_failure(run("train_frcnn", "--resume --run " + workplace().path("nothing")), "train_frcnn", "last.safetensors");
}

TEST_CASE("wrong usage exits with 2, help with 0") {
  CHECK(run("train_frcnn", "--no-such-option").status == 2);
  CHECK(run("train_frcnn", "--epochs many").status == 2);
  CHECK(run("eval_frcnn", "").status == 2);
  CHECK(run("detect_frcnn", "").status == 2);
  CHECK(run("qat_frcnn", "").status == 2);
  for (const char* app : {"train_frcnn", "eval_frcnn", "detect_frcnn", "qat_frcnn", "bench_int8"}) {
    const Outcome help = run(app, "--help");
    CHECK(help.status == 0);
    CHECK_THAT(help.text, Contains("--threads"));
  }
}

TEST_CASE("--threads and SHRIKE_THREADS") {
  const std::string best = trained() + "/best.safetensors";
  const std::string picture = (fs::directory_iterator(workplace().data() + "/JPEGImages"))->path().string();
  for (const auto& [app, arguments] : std::vector<std::pair<std::string, std::string>>{{"train_frcnn", ""},
                                                                                       {"eval_frcnn", "x"},
                                                                                       {"detect_frcnn", "x x"},
                                                                                       {"qat_frcnn", "--checkpoint x"},
                                                                                       {"bench_int8", ""}}) {
    for (const char* bad : {"-1", "two", "1.5", "99999999999"}) {
      const Outcome outcome = run(app, arguments + " --threads=" + bad);
      INFO(app << ": " << outcome.text);
      CHECK(outcome.status == 2);
      CHECK_THAT(outcome.text, Contains("--threads"));
    }
  }
  const std::string detect = best + " " + picture + " -o " + workplace().path("detected") + " --no-draw ";
  const Outcome many = run("detect_frcnn", detect + "--threads 100000");
  CHECK(many.status == 0);
  const std::string most = std::to_string(available_threads());
  CHECK_THAT(many.text,
             Contains("--threads 100000: this process may use " + most + " processor(s): going on with " + most + "\n"));
  const Outcome automatic = run("detect_frcnn", detect + "--threads 0");
  CHECK(automatic.status == 0);
  CHECK_THAT(automatic.text, !Contains("--threads"));

  REQUIRE(setenv("SHRIKE_THREADS", "three", 1) == 0);
  for (const auto& [app, arguments] :
       std::vector<std::pair<std::string, std::string>>{{"train_frcnn", "--run " + workplace().path("no_threads")},
                                                        {"eval_frcnn", best},
                                                        {"detect_frcnn", detect},
                                                        {"qat_frcnn", "--checkpoint " + best},
                                                        {"bench_int8", "--runs 1"}}) {
    check_failure(run(app, arguments), app, "SHRIKE_THREADS is 'three'");
  }
  CHECK(run("detect_frcnn", detect + "--threads 1").status == 0);  // the option wins
  REQUIRE(setenv("SHRIKE_THREADS", "1", 1) == 0);
  CHECK(run("detect_frcnn", detect).status == 0);
  REQUIRE(unsetenv("SHRIKE_THREADS") == 0);
}

TEST_CASE("bad settings and files are one line and exit status 1") {
  check_failure(run("train_frcnn", "--preset coco"), "train_frcnn", "preset 'coco'");
  check_failure(run("train_frcnn", training("bad", "--backbone alexnet")), "train_frcnn", "backbone 'alexnet'");
  check_failure(run("train_frcnn", training("bad", "--device tpu")), "train_frcnn", "device 'tpu'");
  check_failure(run("train_frcnn", training("bad", "--schedule sine")), "train_frcnn", "schedule 'sine'");
  check_failure(run("train_frcnn", training("bad", "--weights /no/such/file")), "train_frcnn", "/no/such/file");
  check_failure(run("train_frcnn", training("bad", "--resplit 9")), "train_frcnn", "9");
  check_failure(run("train_frcnn", "--preset bccd --data /no/such/folder --run " + workplace().path("bad")), "train_frcnn",
                "/no/such/folder");
  check_failure(run("train_frcnn", training("bad", "--classes circle,square")), "train_frcnn", "triangle");
  check_failure(run("detect_frcnn", trained() + "/best.safetensors /no/such/picture.jpg"), "detect_frcnn",
                "/no/such/picture.jpg");
  check_failure(run("eval_frcnn", trained() + "/config.toml"), "eval_frcnn", "config.toml");
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

TEST_CASE("a loss that is not finite stops the run, names the images and keeps the last checkpoint") {
  const Outcome outcome = run("train_frcnn", training("diverged", "--lr 1e30 --clip-norm 0 --warmup 0 --save-every 1"));
  INFO(outcome.text);
  check_failure(outcome, "train_frcnn", "image");
  CHECK_THAT(outcome.text, Contains("not finite") || Contains("the loss is"));
}

TEST_CASE("checkpoints that do not fit are named: truncated, another network's, NaN") {
  const std::string good = trained() + "/best.safetensors";
  const std::string bad = workplace().path("bad.safetensors");
  const std::string all = bytes(good);
  for (const std::size_t length : {std::size_t{0}, std::size_t{7}, std::size_t{100}, all.size() / 2, all.size() - 1}) {
    write_file_atomically(bad, std::string_view(all).substr(0, length));
    check_failure(run("eval_frcnn", bad), "eval_frcnn", "bad.safetensors");
  }
  TensorFile file = load_safetensors(good);
  const auto name = file.tensors.begin()->first;
  const auto with = [&](const std::function<void(TensorFile&)>& change) {
    TensorFile changed = file;
    change(changed);
    save_safetensors(bad, changed);
    return run("eval_frcnn", bad);
  };
  check_failure(with([&](TensorFile& f) { f.tensors.erase(name); }), "eval_frcnn", name);
  check_failure(with([&](TensorFile& f) { f.tensors["surplus"] = full({3}, 1.0f); }), "eval_frcnn", "surplus");
  check_failure(with([&](TensorFile& f) { f.tensors[name] = full({2, 3}, 1.0f); }), "eval_frcnn", name);
  check_failure(with([&](TensorFile& f) {
                  f.tensors[name] = file.tensors[name].clone();
                  f.tensors[name].data<float>()[0] = NAN;
                }),
                "eval_frcnn", name);
  check_failure(with([&](TensorFile& f) { f.metadata["format"] = "shrike-detector-99"; }), "eval_frcnn", "shrike-detector-99");
  check_failure(with([&](TensorFile& f) { f.metadata["model.width"] = "many"; }), "eval_frcnn", "model.width");
  check_failure(with([&](TensorFile& f) { f.metadata.clear(); }), "eval_frcnn", "not a checkpoint");
  // One from before there were these settings is none of them.
  const Outcome old = with([](TensorFile& f) {
    for (const char* setting : {"train.provider", "train.tf32", "train.cuda-graphs"}) f.metadata.erase(setting);
  });
  INFO(old.text);
  CHECK(old.status == 0);
}

TEST_CASE("a full disk leaves the old checkpoint as it was") {
  // A limit on the size of files stands in for the disk; the log is small enough to pass.
  REQUIRE(run("train_frcnn", training("full_disk", "--epochs 1")).status == 0);
  const std::string before = bytes(workplace().path("full_disk/last.safetensors"));
  const std::string limit = std::to_string(before.size() / 1024 / 2);
  FILE* pipe = popen(("trap '' XFSZ; ulimit -f " + limit + "; " + binary("train_frcnn") + " --resume --epochs 2 --run " +
                      workplace().path("full_disk") + " 2>&1")
                         .c_str(),
                     "r");
  std::string text;
  char buffer[4096];
  for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  INFO(text);
  CHECK(WEXITSTATUS(pclose(pipe)) == 1);
  CHECK_THAT(text, Contains("safetensors"));
  CHECK((bytes(workplace().path("full_disk/last.safetensors")) == before));
  CHECK_FALSE(fs::exists(workplace().path("full_disk/last.safetensors.tmp")));
  CHECK(run("eval_frcnn", workplace().path("full_disk/last.safetensors")).status == 0);
}
