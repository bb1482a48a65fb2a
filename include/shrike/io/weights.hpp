// Weights between files and the named tensors of a model. Files of the PyTorch world keep convolutions as OIHW and the first
// linear layer after a flatten in (channel, row, column) order; Shrike keeps KRSC and (row, column, channel). This is the door
// between.
#pragma once

#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "shrike/io/safetensors.hpp"

namespace shrike {

enum class WeightLayout {
  torchvision,  // OIHW; a flattened linear weight is (out, C*H*W)
  shrike,       // as in memory
};

struct WeightOptions {
  WeightLayout layout = WeightLayout::torchvision;  // of the file

  // Beginnings of names, {in the file, in the model}: {"features.", "backbone."}. The first that fits a name is applied; names
  // that none fits are the same on both sides.
  std::vector<std::pair<std::string, std::string>> prefixes;

  // Linear weights of the model whose inputs are a flattened feature map, by name in the model: that map's {C, H, W}.
  std::map<std::string, std::array<std::int64_t, 3>> flatten;

  bool allow_missing = false;  // the model may have tensors that the file lacks; they stay as they are
  bool allow_extra = false;    // the file may have tensors that the model lacks
};

struct LoadedWeights {
  std::vector<std::string> loaded;   // names in the model
  std::vector<std::string> missing;  // names in the model
  std::vector<std::string> extra;    // names in the file; never one that ends in num_batches_tracked, which nothing here uses
};

// Copies a file's tensors into the model's, on whatever device those are. f16 becomes f32; other types must be equal. A rank-4
// tensor is taken for a convolution weight. Throws one Error that counts and names the missing, extra and ill-shaped tensors,
// or names a tensor with a NaN or infinity and its place; nothing was changed then.
LoadedWeights load_named(const TensorFile& file, const NamedTensors& model, const WeightOptions& options = {});

// The reverse: a file's tensors, in its layout and with its names, on the host. Tensors that need no reordering are shared.
TensorFile export_named(const NamedTensors& model, const WeightOptions& options = {});

}  // namespace shrike
