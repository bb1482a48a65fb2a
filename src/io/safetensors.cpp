#include "shrike/io/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <vector>

#include "safetensors_header.hpp"
#include "shrike/io/file.hpp"
#include "shrike/io/json.hpp"

namespace shrike {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

// Copies bytes of the file, by offset from its beginning.
using Reader = std::function<void(std::uint64_t offset, void* to, std::size_t bytes)>;

// Reads `count` elements stored as S in pieces and writes them to `to` as float.
template <class S, class F> void convert(const Reader& read, std::uint64_t offset, std::int64_t count, float* to, F to_float) {
  std::array<S, 8192> piece;
  while (count > 0) {
    const auto n = static_cast<std::size_t>(std::min<std::int64_t>(count, piece.size()));
    read(offset, piece.data(), n * sizeof(S));
    std::transform(piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(n), to, to_float);
    offset += n * sizeof(S);
    to += n;
    count -= static_cast<std::int64_t>(n);
  }
}

Tensor read_tensor(const safetensors::Entry& entry, const Reader& read, std::uint64_t offset) {
  if (entry.dtype == "BF16" || entry.dtype == "F64") {
    const Tensor tensor(entry.shape, Dtype::f32);
    float* to = tensor.data<float>();
    if (entry.dtype == "F64") {
      convert<double>(read, offset, tensor.numel(), to, [](double value) { return static_cast<float>(value); });
    } else {
      convert<std::uint16_t>(read, offset, tensor.numel(), to,
                             [](std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); });
    }
    return tensor;
  }
  const Dtype dtype = entry.dtype == "F32"   ? Dtype::f32
                      : entry.dtype == "F16" ? Dtype::f16
                      : entry.dtype == "I8"  ? Dtype::s8
                      : entry.dtype == "I32" ? Dtype::s32
                      : entry.dtype == "I64" ? Dtype::s64
                                             : Dtype::u8;
  const Tensor tensor(entry.shape, dtype);
  if (tensor.bytes() > 0) read(offset, tensor.raw(), tensor.bytes());
  return tensor;
}

TensorFile read_file_of(const std::string& name, std::uint64_t size, const Reader& read) {
  SHRIKE_CHECK(size >= 8, name, ": has ", size, " bytes, a safetensors file has at least 8");
  std::uint64_t header_bytes = 0;
  read(0, &header_bytes, 8);
  SHRIKE_CHECK(header_bytes <= safetensors::max_header_bytes, name, ": the header has ", header_bytes, " bytes, at most ",
               safetensors::max_header_bytes, " are allowed (is this a safetensors file?)");
  SHRIKE_CHECK(header_bytes <= size - 8, name, ": the header of ", header_bytes,
               " bytes passes the end of the file, which has ", size, " bytes");
  std::string json(header_bytes, '\0');
  read(8, json.data(), json.size());
  safetensors::Header header = safetensors::parse_header(json, name);

  const std::uint64_t begin = 8 + header_bytes;
  const std::uint64_t end = header.entries.empty() ? 0 : header.entries.back().end;
  SHRIKE_CHECK(end <= size - begin, name, ": is cut off: the tensors need ", end, " bytes after the header, the file has ",
               size - begin);
  SHRIKE_CHECK(end == size - begin, name, ": has ", size - begin - end, " bytes after the last tensor");

  TensorFile file;
  file.name = name;
  file.metadata = std::move(header.metadata);
  for (const safetensors::Entry& entry : header.entries) {
    file.tensors[entry.name] = read_tensor(entry, read, begin + entry.begin);
  }
  return file;
}

const char* dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32: return "F32";
    case Dtype::f16: return "F16";
    case Dtype::s8: return "I8";
    case Dtype::u8: return "U8";
    case Dtype::s32: return "I32";
    case Dtype::s64: return "I64";
  }
  fail("dtype ", static_cast<int>(dtype), " is unknown");
}

// The reference implementation's order of types, so that the same tensors make the same file.
int rank_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::s64: return 0;
    case Dtype::f32: return 1;
    case Dtype::s32: return 2;
    case Dtype::f16: return 3;
    case Dtype::s8: return 4;
    case Dtype::u8: return 5;
  }
  return 6;
}

using Named = std::pair<const std::string, Tensor>;

std::string header_of(const std::vector<const Named*>& order, const TensorFile& file, const std::string& path) {
  JsonWriter json;
  json.begin_object();
  if (!file.metadata.empty()) {
    json.key("__metadata__").begin_object();
    for (const auto& [key, text] : file.metadata) {
      SHRIKE_CHECK(is_utf8(key) && is_utf8(text), path, ": cannot save metadata ", json_quote(key), ": not UTF-8");
      json.field(key, text);
    }
    json.end_object();
  }
  std::uint64_t at = 0;
  for (const Named* named : order) {
    const auto& [name, tensor] = *named;
    SHRIKE_CHECK(is_utf8(name) && name != "__metadata__", path, ": cannot save a tensor named ", json_quote(name));
    json.key(name).begin_object().field("dtype", dtype_name(tensor.dtype())).key("shape").begin_array();
    for (const std::int64_t size : tensor.shape()) json.value(size);
    json.end_array().key("data_offsets").begin_array().value(at).value(at + tensor.bytes()).end_array().end_object();
    at += tensor.bytes();
  }
  std::string text = json.end_object().str();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  SHRIKE_CHECK(text.size() <= safetensors::max_header_bytes, path, ": cannot save: the header has ", text.size(),
               " bytes, at most ", safetensors::max_header_bytes, " are allowed");
  return text;
}

}  // namespace

TensorFile load_safetensors(const std::string& path) {
  const InputFile input(path);
  return read_file_of(path, input.size(),
                      [&](std::uint64_t offset, void* to, std::size_t bytes) { input.read(offset, to, bytes); });
}

TensorFile parse_safetensors(std::string_view bytes, const std::string& name) {
  return read_file_of(name, bytes.size(), [&](std::uint64_t offset, void* to, std::size_t count) {
    if (count > 0) std::memcpy(to, bytes.data() + offset, count);
  });
}

void save_safetensors(const std::string& path, const TensorFile& file) {
  std::vector<const Named*> order;
  for (const Named& named : file.tensors) {
    SHRIKE_CHECK(named.second.defined(), path, ": cannot save tensor ", json_quote(named.first), ": it is undefined");
    order.push_back(&named);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const Named* a, const Named* b) { return rank_of(a->second.dtype()) < rank_of(b->second.dtype()); });
  const std::string header = header_of(order, file, path);
  const std::uint64_t header_bytes = header.size();
  write_file_atomically(path, [&](AtomicFile& output) {
    output.write(&header_bytes, 8);
    output.write(header);
    for (const Named* named : order) {
      const Tensor host = named->second.to(Device::cpu);
      output.write(host.raw(), host.bytes());
    }
  });
}

}  // namespace shrike
