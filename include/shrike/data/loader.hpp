// From a data set to batches, read, resized and augmented ahead of time on threads of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "shrike/core/staging.hpp"
#include "shrike/data/dataset.hpp"
#include "shrike/data/image.hpp"

namespace shrike {

struct LoaderOptions {
  int min_size = 600,
      max_size = 1000;         // resize so that the shorter side is min_size, the longer at most max_size (target_size)
  std::vector<int> min_sizes;  // not empty: one of them instead of min_size, drawn for each image and epoch
  Normalization normalization;
  double flip_probability = 0.5;
  Jitter jitter;                // none
  bool keep_difficult = false;  // objects marked difficult among the targets
  int batch_size = 1;           // images; the last batch of an epoch may have fewer
  int size_divisor = 1;         // pad height and width of a batch to multiples of this
  bool shuffle = true;
  std::uint64_t seed = 0;
  int threads = 2;              // of a lower priority than computing; 0: work is done inside next()
  int prefetch = 4;             // batches that wait or are being made at any time, which bounds the memory
  Device device = Device::cpu;  // where batches are wanted; copied there ahead of time, beside what the device computes

  // No augmentation, the data set's order, all objects.
  static LoaderOptions evaluation(int min_size, int max_size, const Normalization& normalization) {
    LoaderOptions options;
    options.min_size = min_size;
    options.max_size = max_size;
    options.normalization = normalization;
    options.flip_probability = 0;
    options.keep_difficult = true;
    options.shuffle = false;
    return options;
  }
};

// One image of a batch. Boxes are in pixels of the resized, perhaps mirrored image; dividing by the scales and undoing the
// mirror leads back to the original.
struct BatchImage {
  std::string id;
  std::int64_t index = 0;     // in the data set
  Tensor boxes;               // f32 [M, 4], without crowds, on LoaderOptions::device
  Tensor labels;              // s32 [M], likewise
  int height = 0, width = 0;  // of the valid part of the batch, from the upper left corner
  int original_height = 0, original_width = 0;
  float scale_x = 1, scale_y = 1;  // width / original_width, height / original_height
  bool flipped = false;
};

struct Batch {
  Tensor images;  // f32 [N, H, W, 3] on LoaderOptions::device, normalised; zeros right of and below each image
  std::vector<BatchImage> items;
};

// Serves a data set epoch by epoch. The order depends on (seed, epoch) alone, and what is done to an image on (seed, epoch,
// index) alone: neither on the number of threads nor on where an epoch was started.
//
//   loader.start(epoch, first_batch);
//   while (auto batch = loader.next()) train(*batch);
class Loader {
 public:
  // Throws Error when the data set is empty or an option makes no sense.
  Loader(Dataset dataset, LoaderOptions options);
  ~Loader();  // waits for the images in the making, not for whole batches
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  const Dataset& dataset() const { return dataset_; }
  const LoaderOptions& options() const { return options_; }
  std::int64_t batches() const;  // in an epoch

  // Begins `epoch` at batch number `first_batch`, which may be batches(): then the epoch is over at once. Batches made ahead
  // for another place are dropped.
  void start(std::int64_t epoch, std::int64_t first_batch = 0);

  // The next batch, or nothing at the epoch's end. Throws Error, at the batch it belongs to, when an image cannot be read or
  // has another size than the data set says; the following call goes on behind it.
  std::optional<Batch> next();

 private:
  struct Slot {
    bool ready = false;
    Batch batch;
    Upload upload;  // of the batch's tensors
    std::exception_ptr error;
  };

  std::vector<std::int64_t> order(std::int64_t epoch) const;
  void run();
  void stop();
  bool cancelled(std::int64_t generation);
  Slot make(const std::vector<std::int64_t>& order, std::int64_t epoch, std::int64_t batch, std::int64_t generation);
  std::optional<Batch> hand_out(Slot slot);

  const Dataset dataset_;
  const LoaderOptions options_;

  std::mutex mutex_;  // guards all below, except threads_
  std::condition_variable work_, ready_;
  std::vector<std::int64_t> order_;
  std::int64_t epoch_ = 0;
  std::int64_t generation_ = 0;  // of start() calls; 0 before the first
  std::int64_t next_job_ = 0;    // batch that the next free thread makes
  std::int64_t next_out_ = 0;    // batch that next() returns
  std::vector<Slot> slots_;      // batch b in b % prefetch
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace shrike
