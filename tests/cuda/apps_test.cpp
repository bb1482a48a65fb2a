// The applications with --device cuda, beside the same with the CPU.
#include "apps.hpp"
#include "cuda/compare.hpp"
#include "shrike/io/safetensors.hpp"

using namespace programs;

namespace {

const std::string on_device = " --device cuda --provider native --no-tf32 ";
// 12 steps: in twice as many, roundings in the last bit grow to what can be seen. Under a sanitizer one step, of the same
// twelve images and a quarter of their pixels.
const std::string length = sanitized ? " --epochs 1 --batch 12 --min-size 32 --max-size 48 " : " --epochs 1 ";

// The run's folder.
std::string train(const std::string& name, const std::string& more) {
  const Outcome outcome = run("train_frcnn", training(name, length + more));
  INFO(outcome.text);
  REQUIRE(outcome.status == 0);
  return workplace().path(name);
}

// What an application says on success.
std::string said(const std::string& app, const std::string& arguments) {
  const Outcome outcome = run(app, arguments);
  INFO(outcome.text);
  REQUIRE(outcome.status == 0);
  return outcome.text;
}

}  // namespace

TEST_CASE("two trainings on the device give the same weights to the bit, and nearly the CPU's") {
  // The start with the smaller gradients: rounding grows less over the steps.
  const std::string small = "--init pytorch ";
  const std::string cpu = train("cpu", small), cuda = train("cuda", small + on_device),
                    again = train("again", small + on_device);
  CHECK((bytes(cuda + "/last.safetensors") == bytes(again + "/last.safetensors")));

  const TensorFile expected = load_safetensors(cpu + "/last.safetensors"), got = load_safetensors(cuda + "/last.safetensors");
  REQUIRE(got.tensors.size() == expected.tensors.size());
  for (const auto& [name, tensor] : expected.tensors) {
    if (tensor.dtype() != Dtype::f32) continue;
    INFO(name);
    const auto a = tensor.to_vector<float>(), b = got.tensors.at(name).to_vector<float>();
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(b[i] == Approx(a[i]).epsilon(1e-3).margin(1e-4));
  }

  const std::string checkpoint = cuda + "/last.safetensors ";
  CHECK_THAT(said("eval_frcnn", checkpoint + on_device), Catch::Matchers::Contains("mean"));

  const std::string images = workplace().data() + "/JPEGImages/000001.jpg " + workplace().data() + "/JPEGImages/000002.jpg ";
  const auto objects = [&](const std::string& more) {
    const std::string text =
        said("detect_frcnn", checkpoint + images + "--score 0.0001 -o " + workplace().path("found") + more);
    CHECK_THAT(text, Catch::Matchers::Contains("in 2 images"));
    return text.substr(0, text.find(" objects"));
  };
  CHECK(objects(on_device) == objects(""));
}

TEST_CASE("a detector is timed on the device in fp32, TF32, fp16 and int8") {
  const std::string json = workplace().path("bench.json");
  const std::string text =
      said("bench_int8",
           "--device cuda --provider native --size 32x48 --backbone vgg11 --width 4 --head-width 8 --roi-size 2 "
           "--test-post-nms 9 --runs 1 --json " +
               json);
  using Catch::Matchers::Contains;
  CHECK_THAT(text, Contains("fp32/int8   tf32/int8   fp16/int8") && Contains("backbone.narrow") && Contains("fp16: kernels"));
  CHECK_THAT(text, Contains("f16 mma m16n8k") && Contains("GOP/s for fp16"));
  CHECK_THAT(bytes(json), Contains("\"fp16\":{\"detector\":{\"median_ms\":") && Contains("\"op\":\"half_linear\""));
}
