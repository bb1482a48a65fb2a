// Matrix products beside OpenBLAS: the three passes of linear layers, which are the three ways in which a factor can lie
// transposed. The results are compared, then the two take turns; medians.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "benchmarks/support/openblas.hpp"
#include "benchmarks/support/random.hpp"
#include "benchmarks/support/turns.hpp"
#include "shrike/core/threads.hpp"
#include "shrike/io/file.hpp"
#include "shrike/ops/linear.hpp"

using namespace shrike;
using bench::OpenBlas;
using bench::random_tensor;

namespace {

struct Case {
  const char* name;
  std::int64_t rows, in, out;
};

// fc6 and fc7 of VGG16 for the regions of an inference and of a training step, and fc6 of the shapes preset; squares; few rows,
// few columns, odd ones: 45 are the RPN's logits and deltas of 9 anchors on a map of 37x50, 105 the scores and deltas of 21
// classes.
constexpr Case cases[] = {
    {"fc6-300", 300, 25088, 4096},     {"fc6-128", 128, 25088, 4096},     {"fc7-300", 300, 4096, 4096},
    {"fc7-128", 128, 4096, 4096},      {"small-128", 128, 6272, 256},     {"square-256", 256, 256, 256},
    {"square-512", 512, 512, 512},     {"square-1000", 1000, 1000, 1000}, {"square-1024", 1024, 1024, 1024},
    {"square-2048", 2048, 2048, 2048}, {"square-3000", 3000, 3000, 3000}, {"row-1", 1, 4096, 4096},
    {"rows-7", 7, 4096, 1000},         {"columns-45", 1850, 512, 45},     {"columns-105", 300, 4096, 105},
    {"odd-333", 333, 777, 555}};
constexpr const char* passes[] = {"forward", "data", "weight"};
constexpr double tolerance = 1e-4;  // of the greatest value; sums of 25088 products round to about 1e-5

struct Arguments {
  std::string only, pass, library = "libopenblas.so.0", json;
  int runs = 9, threads = 0;
  bool cpu_time = false;
};

// A product c [m, n] = a * b of both sides, with one set of factors and a result of each.
struct Problem {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b;
  Tensor a, b, ours, theirs;
  std::function<void()> run_ours;

  double gflop() const { return 2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }

  // An element, in double precision.
  double exact(std::int64_t i) const {
    const std::int64_t row = i / n, column = i % n;
    double sum = 0;
    for (std::int64_t l = 0; l < k; ++l) {
      sum += double{a.data<float>()[transpose_a ? l * m + row : row * k + l]} *
             double{b.data<float>()[transpose_b ? column * k + l : l * n + column]};
    }
    return sum;
  }
};

// y = x * weight^T; dx = dy * weight; dweight = dy^T * x.
Problem make_problem(const Case& c, int pass) {
  const kernels::LinearSizes z{c.rows, c.in, c.out, false};
  const bool forward = pass == 0, data = pass == 1;
  const Tensor weight = pass == 2 ? Tensor() : random_tensor({c.out, c.in}, 1);
  const Tensor x = data ? Tensor() : random_tensor({c.rows, c.in}, 2);
  const Tensor dy = forward ? Tensor() : random_tensor({c.rows, c.out}, 3);
  const Shape result = forward ? Shape{c.rows, c.out} : data ? Shape{c.rows, c.in} : Shape{c.out, c.in};
  const Tensor out = random_tensor(result, 4), theirs = random_tensor(result, 5);
  const auto raw = [](const Tensor& tensor) { return tensor.defined() ? tensor.data<float>() : nullptr; };
  const auto run = [=] {
    if (forward) {
      kernels::linear_forward(Cpu{}, z, raw(x), raw(weight), nullptr, raw(out));
    } else {
      kernels::linear_backward(Cpu{}, z, raw(x), raw(weight), nullptr, raw(dy), data ? raw(out) : nullptr,
                               data ? nullptr : raw(out), nullptr);
    }
  };
  if (forward) return {c.rows, c.out, c.in, false, true, x, weight, out, theirs, run};
  if (data) return {c.rows, c.in, c.out, false, false, dy, weight, out, theirs, run};
  return {c.out, c.in, c.rows, true, false, dy, x, out, theirs, run};
}

// The greatest difference of the two results, as a part of the greatest value. Throws Error above the tolerance, naming the
// side that is wrong.
double compare(const Problem& p, const std::string& name) {
  double greatest = 0, difference = 0;
  std::int64_t where = 0;
  const float *ours = p.ours.data<float>(), *theirs = p.theirs.data<float>();
  for (std::int64_t i = 0; i < p.m * p.n; ++i) {
    greatest = std::max(greatest, std::abs(double{theirs[i]}));
    const double here = std::abs(double{ours[i]} - double{theirs[i]});
    if (!(here <= difference)) {  // a NaN too
      difference = here;
      where = i;
    }
    if (std::isnan(difference)) break;
  }
  const double relative = difference / std::max(greatest, 1e-30);
  if (!(relative <= tolerance)) {
    const double exact = p.exact(where);
    fail(name, ": the results differ by ", relative, " of the greatest value: element ", where, " is ", exact, ", ours ",
         ours[where], ", OpenBLAS's ", theirs[where]);
  }
  return relative;
}

struct Summary {
  int rows = 0, slower = 0;
  double least = 1e30;
  std::string where;
};

void run_row(const Arguments& arguments, const OpenBlas* blas, const Case& c, int pass, Summary& summary,
             nlohmann::json& results) {
  const std::string name = std::string(c.name) + " " + passes[pass];
  const Problem p = make_problem(c, pass);
  std::vector<std::function<void()>> candidates{p.run_ours};
  double difference = 0;
  if (blas != nullptr) {
    candidates.push_back([&] {
      blas->multiply(p.transpose_a, p.transpose_b, p.m, p.n, p.k, p.a.data<float>(), p.b.data<float>(), p.theirs.data<float>());
    });
    for (const auto& candidate : candidates) candidate();
    difference = compare(p, name);
  }
  const std::vector<double> ms = timing::medians_in_turn(candidates, arguments.runs, arguments.cpu_time);
  const double speed = 1e3 * p.gflop() / ms[0];
  std::printf("| %s | %ldx%ldx%ld | %s | %.2f | %.1f", c.name, static_cast<long>(p.m), static_cast<long>(p.n),
              static_cast<long>(p.k), passes[pass], ms[0], speed);
  nlohmann::json row{{"case", c.name}, {"m", p.m}, {"n", p.n}, {"k", p.k}, {"pass", passes[pass]}, {"ours_ms", ms[0]}};
  if (blas != nullptr) {
    const double ratio = ms[1] / ms[0];
    std::printf(" | %.2f | %.1f | %.2f | %.0e", ms[1], 1e3 * p.gflop() / ms[1], ratio, difference);
    row["openblas_ms"] = ms[1];
    row["difference"] = difference;
    ++summary.rows;
    if (ratio < 0.9) ++summary.slower;
    if (ratio < summary.least) {
      summary.least = ratio;
      summary.where = name;
    }
  }
  std::printf(" |\n");
  std::fflush(stdout);
  results.push_back(row);
}

// The name of OpenBLAS's kernels for the widest vectors that the processor has; null for SSE.
const char* best_core() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return "SkylakeX";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
#endif
  return nullptr;
}

// What a reader needs to judge OpenBLAS's speed. An OpenBLAS older than the processor takes kernels of a much older one.
void describe(const OpenBlas& blas) {
  std::printf("%s; kernels for %s", blas.config().c_str(), blas.core().c_str());
  for (const char* name : {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}) {
    if (const char* value = std::getenv(name); value != nullptr) std::printf("; %s=%s is set", name, value);
  }
  std::printf("\n");
  for (const char* old : {"Prescott", "Core2", "Penryn", "Nehalem", "Athlon", "Opteron", "Barcelona"}) {
    if (blas.core() != old) continue;
    if (const char* better = best_core(); better != nullptr) {
      std::printf("this OpenBLAS does not know the processor: with OPENBLAS_CORETYPE=%s it may be several times faster\n",
                  better);
    }
  }
}

int run(const Arguments& a) {
  set_num_threads(a.threads);
  std::string why;
  const std::unique_ptr<OpenBlas> blas = OpenBlas::open(a.library, why);
  if (blas != nullptr) {
    blas->set_threads(num_threads());
    describe(*blas);
  } else {
    std::printf("no OpenBLAS (%s; on Debian: apt-get install libopenblas0-pthread): ours alone\n", why.c_str());
  }
  std::printf("%d threads, median of %d runs, milliseconds and GFLOP/s; m x n x k\n\n", num_threads(), a.runs);
  std::printf("| case | product | pass | ours ms | GFLOP/s |%s\n",
              blas != nullptr ? " OpenBLAS ms | GFLOP/s | speed: ours / OpenBLAS | difference |" : "");
  std::printf("|---|---|---|---|---|%s\n", blas != nullptr ? "---|---|---|---|" : "");
  nlohmann::json results = nlohmann::json::array();
  Summary summary;
  for (const Case& c : cases) {
    if (!std::string_view(c.name).starts_with(a.only)) continue;
    for (int pass = 0; pass < 3; ++pass) {
      if (a.pass.empty() || a.pass == passes[pass]) run_row(a, blas.get(), c, pass, summary, results);
    }
  }
  if (summary.rows > 0) {
    std::printf("\n%d rows, below 0.9 of OpenBLAS's speed in %d (%.0f %%), least %.2f (%s)\n", summary.rows, summary.slower,
                100.0 * summary.slower / summary.rows, summary.least, summary.where.c_str());
  }
  if (!a.json.empty()) write_file_atomically(a.json, results.dump(1));
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Matrix products beside OpenBLAS");
  Arguments a;
  app.add_option("--case", a.only, "only cases whose names begin like this: fc6, fc7, square, row, columns, odd");
  app.add_option("--pass", a.pass, "only this pass: forward, data or weight")
      ->check(CLI::IsMember({"forward", "data", "weight"}));
  app.add_option("--openblas", a.library, "the library to open")->capture_default_str();
  app.add_option("--runs", a.runs, "of each; the median counts")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--threads", a.threads, "0: one per core")->capture_default_str()->check(CLI::Range(0, 1024));
  app.add_flag("--cpu-time", a.cpu_time, "measure processor time instead of the clock: for one thread on a busy machine");
  app.add_option("--json", a.json, "write the results there");
  CLI11_PARSE(app, argc, argv);
  return run(a);
} catch (const shrike::Error& error) {
  std::fprintf(stderr, "gemm_bench: %s\n", error.what());
  return 1;
}
