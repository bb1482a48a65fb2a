// Steps of several batches: --accumulate, and runs that end within an epoch.
#include <csignal>

#include "apps.hpp"
#include "apps/moved.hpp"
#include "apps/presets.hpp"
#include "apps/trainer.hpp"

using namespace programs;
using namespace shrike::apps;

namespace {

// A detector for 12 training images of one size; every image yields as many anchors and regions as are wanted.
TrainConfig config_of(const std::string& run, int batch, int accumulate) {
  TrainConfig config = preset("shapes");
  config.data = workplace().data();
  config.run = workplace().path(run);
  config.batch = batch;
  config.accumulate = accumulate;
  config.epochs = 2;
  config.warmup = 2;
  config.workers = 1;
  config.log_every = 1;
  config.model.batch_norm = false;  // whose statistics are those of a batch
  config.model.width = 4;
  config.model.head_width = 16;
  config.model.min_size = 64;
  config.model.max_size = 96;
  config.model.rpn_batch = 32;
  config.model.roi_batch = 16;
  return config;
}

struct Run {
  explicit Run(const TrainConfig& settings) : config(settings) {
    train_set = open_data(config).train;
    std::string loaded;
    model = start_of(config, nullptr, loaded);
    optimizer =
        std::make_unique<nn::Sgd>(sgd_parameters(*model, config), nn::SgdOptions{static_cast<float>(config.momentum), 10});
    fs::create_directories(config.run);
  }
  std::string checkpoint() const { return config.run + "/last.safetensors"; }

  // Trains to the end, or stops two steps after it began.
  bool train(bool resume = false, bool stop = false) {
    if (resume) {
      const TensorFile file = load_safetensors(checkpoint());
      load_checkpoint(file, *model, optimizer.get());
      progress = checkpoint_progress(file);
    }
    Trainer trainer(config, Device::cpu, *model, *optimizer, train_set, test_set, progress);
    trainer.save = [&] {
      save_checkpoint(checkpoint(), *model, optimizer.get(), nullptr, config, progress);
      if (stop) stop_signal = SIGTERM;
    };
    total = trainer.total_steps();
    const bool done = trainer.run(resume);
    stop_signal = 0;
    return done;
  }

  TrainConfig config;
  Dataset train_set, test_set;
  std::shared_ptr<models::FasterRcnn> model;
  std::unique_ptr<nn::Sgd> optimizer;
  Progress progress;
  std::int64_t total = 0;
};

// |a - b| / |b - start| over all parameters.
double difference(models::FasterRcnn& a, models::FasterRcnn& b, models::FasterRcnn& start) {
  double apart = 0, moved = 0;
  const auto x = nn::named_parameters(a), y = nn::named_parameters(b), z = nn::named_parameters(start);
  for (std::size_t p = 0; p < x.size(); ++p) {
    const auto u = x[p].second.to_vector<float>(), v = y[p].second.to_vector<float>(), w = z[p].second.to_vector<float>();
    for (std::size_t i = 0; i < u.size(); ++i) {
      apart += std::pow(static_cast<double>(u[i]) - v[i], 2);
      moved += std::pow(static_cast<double>(v[i]) - w[i], 2);
    }
  }
  return std::sqrt(apart / moved);
}

std::size_t lines(const std::string& text) { return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')); }

}  // namespace

TEST_CASE("a step of three batches of an image is the step of a batch of three") {
  Run accumulated(config_of("accumulated", 1, 3)), batched(config_of("batched", 3, 1)), start(config_of("start", 1, 1));
  REQUIRE(accumulated.train());
  REQUIRE(batched.train());
  CHECK(accumulated.total == 8);
  CHECK(batched.total == 8);
  CHECK(accumulated.progress.step == 8);
  CHECK(difference(*accumulated.model, *batched.model, *start.model) < 1e-3);
  // Losses and rates in the log are those of the whole step.
  std::ifstream one(accumulated.config.run + "/metrics.jsonl"), other(batched.config.run + "/metrics.jsonl");
  const auto value = [](const std::string& line, const std::string& key) {
    const auto at = line.find("\"" + key + "\":");
    REQUIRE(at != std::string::npos);
    return std::stod(line.substr(at + key.size() + 3));
  };
  int compared = 0;
  for (std::string a, b; std::getline(one, a) && std::getline(other, b); ++compared) {
    CHECK(value(a, "iteration") == value(b, "iteration"));
    CHECK(value(a, "lr") == value(b, "lr"));
    for (const char* key : {"loss", "loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "grad_norm"}) {
      INFO(key << " of step " << compared + 1);
      CHECK(value(a, key) == Approx(value(b, key)).epsilon(1e-3));
    }
  }
  CHECK(compared == 8);
}

TEST_CASE("a step's gradient is the mean of its batches' gradients, of fewer in an epoch's last step") {
  TrainConfig config = config_of("mean", 1, 5);  // 5, 5 and 2 images
  config.epochs = 1;
  config.warmup = 0;
  config.momentum = 0;
  config.schedule = "constant";
  Run run(config), reference(config);
  REQUIRE(run.train());
  CHECK(run.total == 3);
  nn::Sgd plain(sgd_parameters(*reference.model, config), nn::SgdOptions{0, 10});
  Loader loader(reference.train_set, loader_options(config, true));
  loader.start(0);
  nn::train(*reference.model, true);
  for (int step = 0; step < 3; ++step) {
    const int batches = step < 2 ? 5 : 2;
    std::vector<std::vector<double>> sums;
    for (int i = 0; i < batches; ++i) {
      const auto batch = loader.next();
      REQUIRE(batch);
      const BatchImage& item = batch->items.at(0);
      const auto number = static_cast<std::uint64_t>(5 * step + i);
      backward(
          reference.model->losses(batch->images, {{item.height, item.width}}, {{item.boxes, item.labels}}, config.seed, number)
              .total);
      std::size_t p = 0;
      for (const auto& parameter : plain.parameters()) {
        const auto grad = parameter.tensor.grad().to_vector<float>();
        sums.resize(plain.parameters().size());
        sums[p].resize(grad.size());
        for (std::size_t k = 0; k < grad.size(); ++k) sums[p][k] += static_cast<double>(grad[k]);
        parameter.tensor.clear_grad();
        ++p;
      }
    }
    std::size_t p = 0;
    for (const auto& parameter : plain.parameters()) {
      const Tensor mean(parameter.tensor.shape());
      for (std::size_t k = 0; k < sums[p].size(); ++k) mean.data<float>()[k] = static_cast<float>(sums[p][k] / batches);
      parameter.tensor.set_grad(mean);
      ++p;
    }
    plain.step(static_cast<float>(config.lr));
  }
  CHECK_FALSE(loader.next());
  Run start(config);
  CHECK(difference(*run.model, *reference.model, *start.model) < 1e-3);
}

TEST_CASE("a run that is stopped between steps of several batches goes on to the same weights") {
  TrainConfig config = config_of("whole", 1, 5);
  Run whole(config);
  REQUIRE(whole.train());
  CHECK(whole.total == 6);
  config.run = workplace().path("parts");
  config.save_every = 1;
  {
    Run first(config);
    CHECK_FALSE(first.train(false, true));
    CHECK(first.progress.step == 2);
  }
  {
    Run second(config);  // to the end of the epoch
    CHECK_FALSE(second.train(true, true));
    CHECK(second.progress.step == 3);
  }
  Run last(config);
  REQUIRE(last.train(true));
  CHECK(last.progress.step == 6);
  const TensorFile expected = load_safetensors(whole.checkpoint()), found = load_safetensors(last.checkpoint());
  REQUIRE(found.tensors.size() == expected.tensors.size());
  for (const auto& [name, tensor] : expected.tensors) {
    INFO(name);
    CHECK((found.tensors.at(name).to_vector<float>() == tensor.to_vector<float>()));
  }
  CHECK(bytes(last.config.run + "/metrics.jsonl") == bytes(whole.config.run + "/metrics.jsonl"));
}

TEST_CASE("a run ends after --max-steps, within an epoch or not") {
  TrainConfig config = config_of("limited", 1, 2);
  config.max_steps = GENERATE(4, 6, 8, 100);
  const std::int64_t expected = std::min(config.max_steps, 12);
  config.run += std::to_string(config.max_steps);
  Run limited(config);
  REQUIRE(limited.train());
  CHECK(limited.progress.step == expected);
  CHECK(lines(bytes(config.run + "/metrics.jsonl")) == static_cast<std::size_t>(expected));
  CHECK(checkpoint_progress(load_safetensors(limited.checkpoint())).step == expected);
}

TEST_CASE("the program accumulates, draws sizes and evaluates at the end of a run within an epoch") {
  const Outcome outcome =
      run("train_frcnn", training("program", "--accumulate 3 --max-steps 5 --train-sizes 48,64,80 --no-match-inclusive"));
  INFO(outcome.text);
  CHECK(outcome.status == 0);
  CHECK_THAT(outcome.text, Catch::Contains("epoch 2 of 2") && Catch::Contains("step 5"));
  const std::string log = bytes(workplace().path("program/metrics.jsonl"));
  CHECK(log.find("\"iteration\":5,\"kind\":\"eval\"") != std::string::npos);
  CHECK_THAT(bytes(workplace().path("program/config.toml")), Catch::Contains("accumulate = 3"));
  const Outcome again = run("train_frcnn", "--resume --run " + workplace().path("program"));
  INFO(again.text);
  CHECK(again.status == 0);
  CHECK(run("eval_frcnn", workplace().path("program/last.safetensors") + " --no-match-inclusive").status == 0);
  const Outcome refused = run("train_frcnn", training("refused", "--accumulate 0"));
  CHECK(refused.status == 1);
  CHECK_THAT(refused.text, Catch::Contains("accumulate 0"));
}
