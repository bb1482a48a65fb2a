#include "shrike/data/loader.hpp"

#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#endif

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <system_error>
#include <utility>

#include "shrike/core/check.hpp"
#include "shrike/core/random.hpp"
#include "shrike/data/transforms.hpp"

namespace shrike {
namespace {

// Both are parts of one 64-bit index of random numbers.
constexpr std::int64_t max_epochs = 1 << 16;
constexpr std::int64_t max_images = std::int64_t{1} << 32;

struct Picture {
  Image image;
  BatchImage item;
};

// Reads a sample and decides on its augmentation; the image's final size is that of the item.
Picture read_picture(const Sample& sample, std::int64_t index, std::int64_t epoch, const LoaderOptions& options) {
  Picture picture;
  picture.image = read_image(sample.image_path);
  Image& image = picture.image;
  SHRIKE_CHECK(image.height == sample.height && image.width == sample.width, sample.image_path, ": the image is ", image.width,
               "x", image.height, " pixels, but the data set says ", sample.width, "x", sample.height);

  BatchImage& item = picture.item;
  Random random(options.seed, RandomStream::augment,
                (static_cast<std::uint64_t>(epoch) << 32) | static_cast<std::uint64_t>(index));
  item.flipped = random.uniform() < options.flip_probability;
  const std::vector<int>& drawn = options.min_sizes;
  const int min_size = drawn.empty() ? options.min_size : drawn[random.below(static_cast<std::uint32_t>(drawn.size()))];
  const ImageSize size = target_size(image.height, image.width, min_size, options.max_size);
  item.id = sample.id;
  item.index = index;
  item.height = size.height;
  item.width = size.width;
  item.original_height = image.height;
  item.original_width = image.width;
  item.scale_x = static_cast<float>(size.width) / static_cast<float>(image.width);
  item.scale_y = static_cast<float>(size.height) / static_cast<float>(image.height);

  const Jitter& ranges = options.jitter;
  if (ranges.brightness > 0 || ranges.contrast > 0 || ranges.saturation > 0 || ranges.hue > 0) {
    // Jitter is per pixel: done on the smaller of the two sizes.
    if (size.height < image.height) image = resize(image, size.height, size.width);
    jitter(image, ranges, random);
  }

  std::vector<float> boxes;
  std::vector<std::int32_t> labels;
  for (const Object& object : sample.objects) {
    if (object.crowd || (object.difficult && !options.keep_difficult)) continue;
    Box box = scaled(object.box, item.scale_x, item.scale_y);
    box.x2 = std::min(box.x2, static_cast<float>(size.width));  // the product may round upwards
    box.y2 = std::min(box.y2, static_cast<float>(size.height));
    if (item.flipped) box = mirrored(box, static_cast<float>(size.width));
    boxes.insert(boxes.end(), {box.x1, box.y1, box.x2, box.y2});
    labels.push_back(object.label);
  }
  const auto count = static_cast<std::int64_t>(labels.size());
  item.boxes = tensor<float>({count, 4}, boxes);
  item.labels = tensor<std::int32_t>({count}, labels);
  return picture;
}

std::int64_t padded(int side, int divisor) { return (std::int64_t{side} + divisor - 1) / divisor * divisor; }

// Puts the pictures into one tensor, each into the upper left corner of its place.
Batch assemble(std::vector<Picture> pictures, const LoaderOptions& options) {
  std::int64_t height = 0, width = 0;
  for (const Picture& picture : pictures) {
    height = std::max(height, padded(picture.item.height, options.size_divisor));
    width = std::max(width, padded(picture.item.width, options.size_divisor));
  }
  Batch batch;
  batch.images = staging_tensor({static_cast<std::int64_t>(pictures.size()), height, width, 3}, Dtype::f32, options.device);
  float* to = batch.images.data<float>();
  for (Picture& picture : pictures) {
    const BatchImage& item = picture.item;
    if (item.height < height || item.width < width) std::fill(to, to + height * width * 3, 0.0f);
    resize_normalize(picture.image, item.height, item.width, options.normalization, item.flipped, to, width * 3);
    to += height * width * 3;
    batch.items.push_back(std::move(picture.item));
  }
  return batch;
}

// The calling thread gives way to those that compute, where there are fewer processors than threads: on Linux it takes a third
// of their share, and does not interrupt them when it wakes. Training does not starve: next() sleeps while it waits, and the
// processors are free. Where the system refuses, the thread stays as it is.
void give_way() {
#if defined(__linux__)
  sched_param none{};
  if (sched_getscheduler(0) == SCHED_OTHER) sched_setscheduler(0, SCHED_BATCH, &none);
  errno = 0;
  const int nice = getpriority(PRIO_PROCESS, 0);  // of this thread, not of the process
  if (errno == 0) setpriority(PRIO_PROCESS, 0, std::min(nice + 5, 19));
#endif
}

void check(const Dataset& dataset, const LoaderOptions& options) {
  SHRIKE_CHECK(!dataset.samples.empty(), dataset.root, ": the data set has no images");
  SHRIKE_CHECK(static_cast<std::int64_t>(dataset.samples.size()) < max_images, dataset.root, ": the data set has ",
               dataset.samples.size(), " images: at most ", max_images - 1, " are supported");
  SHRIKE_CHECK(options.min_size >= 1 && options.max_size >= options.min_size && options.max_size <= max_image_side,
               "image size ", options.min_size, " to ", options.max_size,
               ": expected 1 <= min_size <= max_size <= ", max_image_side);
  for (const int size : options.min_sizes) {
    SHRIKE_CHECK(size >= 1 && size <= options.max_size, "image size ", size, " to ", options.max_size,
                 ": expected 1 <= each size to draw from <= max_size");
  }
  SHRIKE_CHECK(options.flip_probability >= 0 && options.flip_probability <= 1, "flip probability ", options.flip_probability,
               ": expected 0 to 1");
  SHRIKE_CHECK(options.batch_size >= 1 && options.batch_size <= 4096, "batch size ", options.batch_size,
               ": expected 1 to 4096");
  SHRIKE_CHECK(options.size_divisor >= 1 && options.size_divisor <= 4096, "size divisor ", options.size_divisor,
               ": expected 1 to 4096");
  SHRIKE_CHECK(options.threads >= 0 && options.threads <= 256, "loader threads ", options.threads, ": expected 0 to 256");
  SHRIKE_CHECK(options.prefetch >= 1 && options.prefetch <= 4096, "prefetched batches ", options.prefetch,
               ": expected 1 to 4096");
}

}  // namespace

Loader::Loader(Dataset dataset, LoaderOptions options) : dataset_(std::move(dataset)), options_(options) {
  check(dataset_, options_);
  slots_.resize(static_cast<std::size_t>(options_.prefetch));
  // More threads than batches under way would only wait.
  try {
    for (int i = 0; i < std::min(options_.threads, options_.prefetch); ++i) threads_.emplace_back([this] { run(); });
  } catch (const std::system_error& error) {
    stop();
    fail("loader thread ", threads_.size() + 1, " of ", options_.threads, " cannot be started: ", error.what());
  }
}

Loader::~Loader() { stop(); }

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::int64_t Loader::batches() const {
  return (static_cast<std::int64_t>(dataset_.samples.size()) + options_.batch_size - 1) / options_.batch_size;
}

std::vector<std::int64_t> Loader::order(std::int64_t epoch) const {
  std::vector<std::int64_t> result(dataset_.samples.size());
  std::iota(result.begin(), result.end(), std::int64_t{0});
  if (options_.shuffle) Random(options_.seed, RandomStream::shuffle, static_cast<std::uint64_t>(epoch)).shuffle(result);
  return result;
}

void Loader::start(std::int64_t epoch, std::int64_t first_batch) {
  SHRIKE_CHECK(epoch >= 0 && epoch < max_epochs, "epoch ", epoch, ": expected 0 to ", max_epochs - 1);
  SHRIKE_CHECK(first_batch >= 0 && first_batch <= batches(), "batch ", first_batch, " of an epoch of ", batches());
  std::vector<std::int64_t> fresh = order(epoch);
  {
    const std::lock_guard lock(mutex_);
    order_ = std::move(fresh);
    epoch_ = epoch;
    ++generation_;
    next_job_ = next_out_ = first_batch;
    for (Slot& slot : slots_) slot = Slot{};
  }
  work_.notify_all();
}

bool Loader::cancelled(std::int64_t generation) {
  const std::lock_guard lock(mutex_);
  return stopping_ || generation != generation_;
}

Loader::Slot Loader::make(const std::vector<std::int64_t>& order, std::int64_t epoch, std::int64_t batch,
                          std::int64_t generation) {
  Slot slot;
  try {
    const auto n = static_cast<std::int64_t>(order.size());
    std::vector<Picture> pictures;
    for (std::int64_t i = batch * options_.batch_size; i < std::min(n, (batch + 1) * options_.batch_size); ++i) {
      if (cancelled(generation)) return slot;
      const std::int64_t index = order[static_cast<std::size_t>(i)];
      pictures.push_back(read_picture(dataset_.samples[static_cast<std::size_t>(index)], index, epoch, options_));
    }
    slot.batch = assemble(std::move(pictures), options_);
    slot.upload = Upload(options_.device);
    slot.batch.images = slot.upload.add(slot.batch.images);
    for (BatchImage& item : slot.batch.items) {
      item.boxes = slot.upload.add(item.boxes);
      item.labels = slot.upload.add(item.labels);
    }
  } catch (...) {
    slot.error = std::current_exception();
  }
  slot.ready = true;
  return slot;
}

void Loader::run() {
  give_way();
  std::unique_lock lock(mutex_);
  std::vector<std::int64_t> order;  // a copy, renewed when start() was called
  std::int64_t generation = 0;
  for (;;) {
    work_.wait(lock, [&] {
      return stopping_ || (generation_ > 0 && next_job_ < batches() && next_job_ < next_out_ + options_.prefetch);
    });
    if (stopping_) return;
    const std::int64_t job = next_job_++;
    const std::int64_t epoch = epoch_;
    if (generation != generation_) order = order_;
    generation = generation_;
    lock.unlock();
    Slot slot = make(order, epoch, job, generation);
    lock.lock();
    if (generation == generation_) {
      std::swap(slots_[static_cast<std::size_t>(job % options_.prefetch)], slot);
      ready_.notify_one();
    }
    if (slot.batch.images.defined()) {  // made for nobody: freed outside the lock
      lock.unlock();
      slot = Slot{};
      lock.lock();
    }
  }
}

std::optional<Batch> Loader::hand_out(Slot slot) {
  if (slot.error) std::rethrow_exception(slot.error);
  slot.upload.finish();
  return std::move(slot.batch);
}

std::optional<Batch> Loader::next() {
  std::unique_lock lock(mutex_);
  if (generation_ == 0) {
    lock.unlock();
    start(0);
    lock.lock();
  }
  if (next_out_ == batches()) return std::nullopt;
  if (threads_.empty()) {
    const std::int64_t batch = next_out_++;
    const std::int64_t generation = generation_;
    lock.unlock();
    return hand_out(make(order_, epoch_, batch, generation));
  }
  Slot& slot = slots_[static_cast<std::size_t>(next_out_ % options_.prefetch)];
  ready_.wait(lock, [&] { return slot.ready; });
  Slot taken = std::exchange(slot, Slot{});
  ++next_out_;
  lock.unlock();
  work_.notify_one();
  return hand_out(std::move(taken));
}

}  // namespace shrike
