#include "staging.hpp"

#include <algorithm>

#include "shrike/core/staging.hpp"

namespace shrike {
namespace cuda {
namespace {

void give_back(void* block) noexcept { staging().deallocate(block); }

bool all_done(const std::vector<std::shared_ptr<const Transfer>>& readers) {
  return std::all_of(readers.begin(), readers.end(), [](const auto& transfer) { return transfer->done(); });
}

}  // namespace

void* Staging::allocate(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  collect();
  void* const block = pinned_memory().allocate(bytes);
  live_.emplace(block, Readers());
  return block;
}

void Staging::deallocate(void* block) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(block);
  waiting_.emplace_back(block, std::move(found->second));
  live_.erase(found);
  collect();
}

// Blocks that nobody reads any more become free.
void Staging::collect() {
  std::erase_if(waiting_, [](const auto& entry) {
    if (!all_done(entry.second)) return false;
    pinned_memory().deallocate(entry.first);
    return true;
  });
}

bool Staging::owns(const void* block) const {
  const std::lock_guard lock(mutex_);
  return live_.contains(block);
}

void Staging::read_by(const void* block, std::shared_ptr<const Transfer> transfer) {
  const std::lock_guard lock(mutex_);
  Readers& readers = live_.at(block);
  std::erase_if(readers, [](const auto& reader) { return reader->done(); });
  readers.push_back(std::move(transfer));
}

std::size_t Staging::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_.size();
}

Staging& staging() {
  static auto* instance = new Staging;  // never destroyed: static tensors may outlive it
  return *instance;
}

void read_by_stream(const void* from) {
  if (!staging().owns(from)) return;
  const auto transfer = std::make_shared<Transfer>();
  transfer->follow_stream();
  staging().read_by(from, transfer);
}

}  // namespace cuda

Tensor staging_tensor(Cuda, const Shape& shape, Dtype dtype) {
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * size_of(dtype);
  void* const block = cuda::staging().allocate(bytes);
  return {shape, dtype, std::make_shared<Storage>(bytes, Device::cpu, block, cuda::give_back)};
}

Tensor Upload::begin(Cuda, const Tensor& host) {
  SHRIKE_CHECK(host.device() == Device::cpu, "upload: a tensor that is on ", name(host.device()), " already");
  Tensor from = host;
  if (!cuda::staging().owns(host.raw())) {
    from = staging_tensor(host.shape(), host.dtype(), device_);
    from.copy_from(host);
  }
  const Tensor to(host.shape(), host.dtype(), device_);
  const auto transfer = std::make_shared<cuda::Transfer>();
  if (to.bytes() > 0) {
    transfer->add(to.raw(), from.raw(), to.bytes());
    cuda::staging().read_by(from.raw(), transfer);
  }
  arriving_.push_back(to);
  join_ = [before = std::move(join_), transfer] {
    if (before) before();
    transfer->join();
  };
  return to;
}

}  // namespace shrike
