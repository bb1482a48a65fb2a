// The applications as a person meets them: exit status, messages, files. Trains a tiny detector on a few generated shapes.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "apps.hpp"
#include "models/detector.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/io/safetensors.hpp"

using namespace programs;
using Catch::Matchers::Contains;

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
