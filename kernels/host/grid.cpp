// Grids: launch limits, and the workers among which the blocks are divided.
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/host/worker.hpp"
#include "shrike/core/check.hpp"

namespace shrike::cuda::host {
namespace {

Order order_from_environment() {
  const char* text = std::getenv("SHRIKE_CUDA_ORDER");
  const std::string order = text != nullptr ? text : "";
  if (order.empty() || order == "forward") return Order::forward;
  if (order == "reverse") return Order::reverse;
  if (order == "random") return Order::random;
  SHRIKE_CHECK(order == "warp", "SHRIKE_CUDA_ORDER is '", order, "': expected forward, reverse, random or warp");
  return Order::warp;
}

unsigned threads_from_environment() {
  const char* text = std::getenv("SHRIKE_CUDA_THREADS");
  const long count = text != nullptr ? std::strtol(text, nullptr, 10) : static_cast<long>(std::thread::hardware_concurrency());
  SHRIKE_CHECK(text == nullptr || count >= 1, "SHRIKE_CUDA_THREADS is '", text, "': expected a number of at least 1");
  return static_cast<unsigned>(std::clamp(count, 1L, 256L));
}

// Workers are kept: their stacks are worth a millisecond.
class Pool {
 public:
  Worker* take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return new Worker;
    Worker* worker = idle_.back();
    idle_.pop_back();
    return worker;
  }
  void give(Worker* worker) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(worker);
  }

 private:
  std::mutex mutex_;
  std::vector<Worker*> idle_;
};

Pool& pool() {
  static auto* instance = new Pool;  // never destroyed, nor are its workers
  return *instance;
}

// Blocks part, part + parts, ... of the grid: neighbouring blocks are on different workers, where the thread sanitizer sees
// their races. Returns the message of a failure, or nothing.
std::string run_part(Worker& worker, const Grid& grid, Order order, std::size_t part, std::size_t parts) {
  begin_grid(worker, grid, order, static_cast<std::uint32_t>(part + 1));
  void* shared = nullptr;
  // Of exactly this size, so that the address sanitizer sees an overrun.
  if (grid.dynamic_shared > 0 && posix_memalign(&shared, 128, grid.dynamic_shared) != 0) std::abort();
  worker.dynamic_shared = shared;
  const std::size_t total = std::size_t{grid.grid.x} * grid.grid.y * grid.grid.z;
  std::string failure;
  for (std::size_t i = part; i < total && failure.empty(); i += parts) {
    const std::size_t block = order == Order::reverse ? total - 1 - i : i;
    const uint3 index{static_cast<unsigned>(block % grid.grid.x), static_cast<unsigned>(block / grid.grid.x % grid.grid.y),
                      static_cast<unsigned>(block / grid.grid.x / grid.grid.y)};
    if (!run_block(worker, index)) failure = worker.failure;
  }
  end_grid(worker);
  worker.dynamic_shared = nullptr;
  std::free(shared);
  return failure;
}

}  // namespace

void check_launch(dim3 g, dim3 b, std::size_t dynamic_shared) {
  const std::size_t threads = std::size_t{b.x} * b.y * b.z;
  SHRIKE_CHECK(threads >= 1 && threads <= max_threads && b.z <= 64, "CUDA launch: a block of ", b.x, " x ", b.y, " x ", b.z,
               " threads: 1 to ", max_threads, " are possible, 64 in z");
  SHRIKE_CHECK(g.x <= INT_MAX && g.y <= 65535 && g.z <= 65535, "CUDA launch: a grid of ", g.x, " x ", g.y, " x ", g.z,
               " blocks: 2147483647 x 65535 x 65535 are possible");
  SHRIKE_CHECK(dynamic_shared <= max_shared, "CUDA launch: ", dynamic_shared, " bytes of shared memory a block: ", max_shared,
               " are possible");
  SHRIKE_CHECK(current_worker == nullptr, "CUDA launch from inside a kernel");
}

void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared, void (*body)(void*), void* context) {
  static const Order order = order_from_environment();
  static const unsigned threads = threads_from_environment();
  const Grid job{grid, block, dynamic_shared, body, context};
  const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
  if (blocks == 0) return;
  // A thread of the system is worth its start from some thousand CUDA threads on.
  const std::size_t worth = SHRIKE_TSAN ? 2 : std::min<std::size_t>(threads, 1 + blocks * block.x * block.y * block.z / 4096);
  const std::size_t parts = std::min(worth, blocks);
  std::vector<std::string> failures(parts);
  std::vector<Worker*> workers(parts);
  for (Worker*& worker : workers) worker = pool().take();
  std::vector<std::thread> helpers;
  for (std::size_t i = 1; i < parts; ++i) {
    helpers.emplace_back([&, i] { failures[i] = run_part(*workers[i], job, order, i, parts); });
  }
  failures[0] = run_part(*workers[0], job, order, 0, parts);
  for (std::thread& helper : helpers) helper.join();
  for (Worker* worker : workers) pool().give(worker);
  for (const std::string& failure : failures) SHRIKE_CHECK(failure.empty(), failure);
}

}  // namespace shrike::cuda::host
