// Named tensors in a file: safetensors (https://github.com/huggingface/safetensors), 8 bytes of header length, a JSON header,
// the tensors' bytes.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "shrike/core/tensor.hpp"

namespace shrike {

struct TensorFile {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string name = "tensors";  // for messages: the path it was read from
};

// Reads every tensor, to the host, each straight into its memory. F32, F16, I8, U8, I32 and I64 keep their type, BOOL becomes
// u8; BF16 and F64 become f32. Element values are not looked at (see load_named).
//
// As strict as the format's definition: throws Error naming file, tensor, value and what was expected when the header's length
// passes the end or 100 MB, when the header is not one JSON object that begins with '{' and is valid UTF-8, when a key stands
// twice, a dtype is not one of the above, a size is no integer >= 0, a product overflows, a tensor's bytes are not those of its
// shape, tensors overlap or leave a hole, bytes follow the last, or metadata are not strings. Also for ranks above 6.
TensorFile load_safetensors(const std::string& path);

// The same from memory; `name` stands for the path in messages.
TensorFile parse_safetensors(std::string_view bytes, const std::string& name);

// Writes the tensors, from any device, and the metadata, through AtomicFile. The file depends on names and values alone: larger
// elements first so that each tensor is aligned to its element, by name among equals; the header is padded to 8 bytes. Throws
// Error when the disk is full (the old file stays), when a name or text is not UTF-8, or a tensor is undefined.
void save_safetensors(const std::string& path, const TensorFile& file);

}  // namespace shrike
