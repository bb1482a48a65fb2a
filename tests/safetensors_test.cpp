#include "shrike/io/safetensors.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <csignal>
#include <cstring>
#include <limits>

#include "catch.hpp"
#include "paths.hpp"
#include "shrike/core/random.hpp"
#include "shrike/io/file.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using Catch::Matchers::Contains;

namespace {

std::string length(std::uint64_t n) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &n, 8);
  return bytes;
}

// A file of this header and this many bytes of data.
std::string file_of(const std::string& header, std::size_t data) {
  return length(header.size()) + header + std::string(data, '\1');
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

// The message of the refusal, or "accepted".
std::string refusal(const std::string& bytes) {
  try {
    parse_safetensors(bytes, "x.safetensors");
  } catch (const Error& error) {
    const std::string what = error.what();
    CHECK(what.find('\n') == std::string::npos);
    CHECK(what.size() < 1000);
    CHECK(what.substr(0, 15) == "x.safetensors: ");
    return what;
  }
  return "accepted";
}

std::string header_refusal(const std::string& header, std::size_t data) { return refusal(file_of(header, data)); }

TensorFile some_tensors(std::uint64_t seed) {
  Random random(seed, RandomStream::test);
  TensorFile file;
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{3, 0, 2}, Shape{1, 1, 1, 1, 1, 1}, Shape{7, 5, 3}}) {
    const std::string suffix = std::to_string(file.tensors.size());
    const auto fill = [&](auto example) {
      using T = decltype(example);
      const Tensor t(shape, dtype_of<T>);
      for (std::int64_t i = 0; i < t.numel(); ++i) t.data<T>()[i] = static_cast<T>(random.uniform(-100.0f, 100.0f));
      return t;
    };
    file.tensors["f32." + suffix] = fill(0.0f);
    file.tensors["f16." + suffix] = fill(Half());
    file.tensors["s8." + suffix] = fill(std::int8_t{});
    file.tensors["s32." + suffix] = fill(std::int32_t{});
    file.tensors["s64." + suffix] = fill(std::int64_t{});
    const Tensor bytes(shape, Dtype::u8);
    for (std::int64_t i = 0; i < bytes.numel(); ++i) bytes.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(random.bits());
    file.tensors["u8." + suffix] = bytes;
  }
  file.metadata = {{"format", "pt"}, {"odd \" \\ \n \x01 name", "\xe2\x9c\x93"}, {"", ""}};
  return file;
}

bool equal(const TensorFile& a, const TensorFile& b) {
  if (a.metadata != b.metadata || a.tensors.size() != b.tensors.size()) return false;
  for (const auto& [name, tensor] : a.tensors) {
    const auto other = b.tensors.find(name);
    if (other == b.tensors.end() || other->second.shape() != tensor.shape() || other->second.dtype() != tensor.dtype() ||
        std::memcmp(other->second.raw(), tensor.raw(), tensor.bytes()) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("a file of the reference implementation reads to its values and is written back to its bytes") {
  const TemporaryFolder folder;
  const std::string path = golden_path("reference.safetensors");
  const TensorFile file = load_safetensors(path);
  CHECK(file.name == path);
  REQUIRE(file.tensors.size() == 9);
  CHECK(file.tensors.at("b.weight").shape() == Shape{2, 3});
  CHECK(file.tensors.at("b.weight").to_vector<float>() == std::vector<float>{1.5f, -2.0f, 3.25f, 0.0f, -0.0f, 1e-40f});
  CHECK(static_cast<float>(file.tensors.at("a.weight").data<Half>()[2]) == 65504.0f);
  CHECK(file.tensors.at("bytes").to_vector<std::uint8_t>() == std::vector<std::uint8_t>{0, 128, 255});
  CHECK(file.tensors.at("signed").to_vector<std::int8_t>() == std::vector<std::int8_t>{-128, 127});
  CHECK(file.tensors.at("int").to_vector<std::int32_t>() == std::vector<std::int32_t>{INT32_MIN, INT32_MAX});
  CHECK(file.tensors.at("long").to_vector<std::int64_t>() == std::vector<std::int64_t>{INT64_MIN, INT64_MAX});
  CHECK(file.tensors.at("scalar").shape() == Shape{});
  CHECK(file.tensors.at("scalar").item() == 42.0f);
  CHECK(file.tensors.at("empty").shape() == Shape{2, 0, 3});
  CHECK(file.tensors.contains("na\xc3\xafve \"name\"\\"));
  CHECK(file.metadata == std::map<std::string, std::string>{{"note", "line 1\nline 2 \xe2\x9c\x93"}});

  save_safetensors(folder / "again", file);
  CHECK(read_file(folder / "again", 1 << 20) == read_file(path, 1 << 20));
}

TEST_CASE("what is saved is what is loaded") {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  const TensorFile file = some_tensors(1);
  save_safetensors(path, file);
  CHECK(equal(load_safetensors(path), file));
  const std::string bytes = read_file(path, 1 << 20);
  CHECK(equal(parse_safetensors(bytes, "x"), file));
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  CHECK(header % 8 == 0);
  save_safetensors(folder / "b", load_safetensors(path));
  CHECK(read_file(folder / "b", 1 << 20) == bytes);

  save_safetensors(path, {});
  CHECK(read_file(path, 100) == file_of("{}      ", 0));
  CHECK(equal(load_safetensors(path), {}));
}

TEST_CASE("bfloat16 and double become float, bool becomes bytes") {
  const std::string header = R"({"b":)" + entry("BF16", "[3]", "[0,6]") + R"(,"d":)" + entry("F64", "[2]", "[6,22]") +
                             R"(,"t":)" + entry("BOOL", "[2]", "[22,24]") + "}";
  const std::uint16_t half[] = {0x3f80, 0xc020, 0x7f80};
  const double wide[] = {0.1, -1e300};
  std::string bytes = length(header.size()) + header;
  bytes.append(reinterpret_cast<const char*>(half), 6);
  bytes.append(reinterpret_cast<const char*>(wide), 16);
  bytes.append("\0\1", 2);
  const TensorFile file = parse_safetensors(bytes, "x");
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(file.tensors.at("b").to_vector<float>() == std::vector<float>{1.0f, -2.5f, infinity});
  CHECK(file.tensors.at("d").to_vector<float>() == std::vector<float>{0.1f, -infinity});
  CHECK(file.tensors.at("t").to_vector<std::uint8_t>() == std::vector<std::uint8_t>{0, 1});

  // Longer than one piece of the conversion.
  const std::string long_header = R"({"b":)" + entry("BF16", "[20000]", "[0,40000]") + "}";
  std::string long_bytes = file_of(long_header, 40000);
  for (std::size_t i = 0; i < 20000; ++i) long_bytes[8 + long_header.size() + 2 * i + 1] = static_cast<char>(i % 100);
  const std::vector<float> values = parse_safetensors(long_bytes, "x").tensors.at("b").to_vector<float>();
  for (std::uint32_t i = 0; i < 20000; ++i) {
    REQUIRE(values[i] == std::bit_cast<float>(std::uint32_t{((i % 100) << 24) | (1u << 16)}));
  }
}

TEST_CASE("any order of keys and any spaces after the header are fine") {
  CHECK(
      header_refusal(
          R"({"a":{"data_offsets":[4,8],"shape":[1],"dtype":"F32"}, "b":{"shape":[2,1], "data_offsets":[0,4], "dtype":"F16"}}   )",
          8) == "accepted");
  CHECK(header_refusal(R"({"a":)" + entry("F32", "[0]", "[0,0]") + R"(,"b":)" + entry("F32", "[]", "[0,4]") + R"(,"c":)" +
                           entry("F32", "[5,0]", "[4,4]") + "}",
                       4) == "accepted");
}

TEST_CASE("faults of the frame are refused") {
  CHECK_THAT(refusal(""), Contains("has 0 bytes, a safetensors file has at least 8"));
  CHECK_THAT(refusal("1234567"), Contains("has 7 bytes"));
  CHECK_THAT(refusal(length(0)), Contains("does not begin with '{'"));
  CHECK_THAT(refusal(length(3) + "{}"), Contains("header of 3 bytes passes the end of the file, which has 10 bytes"));
  CHECK_THAT(refusal(length(100'000'001) + "{}"), Contains("100000001 bytes, at most 100000000"));
  CHECK_THAT(refusal(length(UINT64_MAX) + "{}"), Contains("18446744073709551615 bytes, at most"));
  CHECK_THAT(refusal("PK\3\4 a zip archive, as torch.save writes"), Contains("is this a safetensors file?"));
  CHECK_THAT(refusal(length(2) + "{}x"), Contains("1 bytes after the last tensor"));
  const std::string one = R"({"a":)" + entry("F32", "[2]", "[0,8]") + "}";
  CHECK(header_refusal(one, 8) == "accepted");
  CHECK_THAT(header_refusal(one, 7), Contains("cut off: the tensors need 8 bytes after the header, the file has 7"));
  CHECK_THAT(header_refusal(one, 9), Contains("1 bytes after the last tensor"));
  CHECK_THROWS_WITH(load_safetensors("/nowhere/x"), Contains("/nowhere/x") && Contains("No such file"));
}

TEST_CASE("a header that is not the expected JSON is refused") {
  CHECK_THAT(header_refusal(" {}", 0), Contains("does not begin with '{'"));
  CHECK_THAT(header_refusal("[]", 0), Contains("does not begin with '{'"));
  CHECK_THAT(header_refusal("{", 0), Contains("not JSON at byte"));
  CHECK_THAT(header_refusal("{}{}", 0), Contains("not JSON"));
  CHECK_THAT(header_refusal("{} x", 0), Contains("not JSON"));
  CHECK_THAT(header_refusal(std::string("{}\0x", 4), 0), Contains("zero byte"));
  CHECK_THAT(header_refusal("{\"a\xff\":1}", 0), Contains("not JSON"));
  CHECK_THAT(header_refusal("{\"a\":\n1}", 0), Contains("\"a\" in the header is a number, expected an object"));
  CHECK_THAT(header_refusal(R"({"a":null})", 0), Contains("\"a\" in the header is null"));
  CHECK_THAT(header_refusal(R"({"a":[]})", 0), Contains("\"a\" in the header is an array"));
  CHECK_THAT(header_refusal(R"({"a":{}})", 0), Contains("tensor \"a\" lacks dtype"));
  CHECK_THAT(header_refusal(R"({"a":{"dtype":"F32","shape":[]}})", 0), Contains("lacks data_offsets"));
  CHECK_THAT(header_refusal(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}})", 4), Contains("has a key \"x\""));
  CHECK_THAT(header_refusal(R"({"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4),
             Contains("the key dtype twice"));
  CHECK_THAT(header_refusal(R"({"a\n":{"dtype":1}})", 0), Contains("tensor \"a\\n\": dtype is a number"));
  CHECK_THAT(header_refusal(R"({"a":{"dtype":["F32"]}})", 0), Contains("dtype is an array"));
  CHECK_THAT(header_refusal(R"({"a":{"shape":"2"}})", 0), Contains("shape is text"));
  CHECK_THAT(header_refusal(R"({"a":{"shape":{}}})", 0), Contains("shape is an object"));
  CHECK_THAT(header_refusal(R"({"a":{"shape":[[1]]}})", 0), Contains("an array in a list"));
  CHECK_THAT(header_refusal(R"({"a":{"shape":[true]}})", 0), Contains("a truth value in a list"));

  const std::string nested(200'000, '[');
  CHECK_THAT(header_refusal(R"({"a":)" + nested, 0), Contains("is an array, expected an object"));
  CHECK_THAT(header_refusal(R"({"a":{"shape":)" + nested, 0), Contains("an array in a list"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  CHECK_THAT(header_refusal(objects, 0), Contains("has a key \"a\""));
  CHECK_THAT(header_refusal("{\"" + std::string(1'000'000, 'n') + "\":1}", 0), Contains("nnn\"... in the header is a number"));
}

TEST_CASE("keys that stand twice are refused") {
  const std::string a = R"("a":)" + entry("F32", "[1]", "[0,4]");
  CHECK_THAT(header_refusal("{" + a + "," + a + "}", 4), Contains("the key \"a\" twice"));
  CHECK_THAT(header_refusal("{" + a + R"(,"\u0061":)" + entry("F32", "[1]", "[4,8]") + "}", 8),
             Contains("the key \"a\" twice"));
  CHECK_THAT(header_refusal(R"({"__metadata__":{},"__metadata__":{}})", 0), Contains("\"__metadata__\" twice"));
  CHECK_THAT(header_refusal(R"({"__metadata__":{"k":"1","k":"1"}})", 0), Contains("metadata have the key \"k\" twice"));
}

TEST_CASE("metadata other than text are refused") {
  CHECK(header_refusal(R"({"__metadata__":{"k":"v"}})", 0) == "accepted");
  CHECK_THAT(header_refusal(R"({"__metadata__":{"k":1}})", 0), Contains("metadata \"k\" is a number, expected text"));
  CHECK_THAT(header_refusal(R"({"__metadata__":{"k":{}}})", 0), Contains("metadata \"k\" is an object"));
  CHECK_THAT(header_refusal(R"({"__metadata__":{"k":[]}})", 0), Contains("metadata \"k\" is an array"));
  CHECK_THAT(header_refusal(R"({"__metadata__":{"k":null}})", 0), Contains("metadata \"k\" is null"));
  CHECK_THAT(header_refusal(R"({"__metadata__":"v"})", 0), Contains("expected an object"));
}

TEST_CASE("dtypes, shapes and offsets that do not fit are refused") {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets, std::size_t data) {
    return header_refusal(R"({"w":)" + entry(dtype, shape, offsets) + "}", data);
  };
  CHECK_THAT(one("F8_E4M3", "[1]", "[0,1]", 1), Contains("tensor \"w\" has dtype \"F8_E4M3\", expected F32"));
  CHECK_THAT(one("f32", "[1]", "[0,4]", 4), Contains("has dtype \"f32\""));
  CHECK_THAT(one("F32", "[3]", "[0,8]", 8), Contains("of dtype F32 and shape [3] has 8 bytes, expected 12"));
  CHECK_THAT(one("F32", "[1,1,1,1,1,1,1]", "[0,4]", 4), Contains("has rank 7, at most 6"));
  CHECK_THAT(one("F32", "[-1]", "[0,4]", 4), Contains("has -1 for a size or an offset"));
  CHECK_THAT(one("F32", "[1.0]", "[0,4]", 4), Contains("has \"1.0\" for a size"));
  CHECK_THAT(one("F32", "[1e0]", "[0,4]", 4), Contains("expected an integer"));
  CHECK_THAT(one("F32", "[1e999]", "[0,4]", 4), Contains("not JSON"));
  CHECK_THAT(one("F32", "[01]", "[0,4]", 4), Contains("not JSON"));
  CHECK_THAT(one("F32", "[NaN]", "[0,4]", 4), Contains("not JSON"));
  CHECK_THAT(one("F32", "[1]", "[0,18446744073709551620]", 4), Contains("expected an integer"));
  CHECK_THAT(one("F32", "[1]", "[0,18446744073709551615]", 4), Contains("has 18446744073709551615"));
  CHECK_THAT(one("F32", "[4611686018427387904,4]", "[0,4]", 4), Contains("more than 2^63 elements"));
  CHECK_THAT(one("F32", "[4611686018427387904,4,0]", "[0,0]", 0), Contains("more than 2^63 elements"));
  CHECK_THAT(one("F32", "[4611686018427387905]", "[0,4]", 4), Contains("more than 2^64 bytes"));
  CHECK_THAT(one("F32", "[4611686018427387904]", "[0,0]", 0), Contains("more than 2^64 bytes"));
  CHECK_THAT(one("F32", "[1]", "[4,0]", 4), Contains("begins at 4 and ends at 0"));
  CHECK_THAT(one("F32", "[1]", "[4]", 4), Contains("has 1 data_offsets"));
  CHECK_THAT(one("F32", "[1]", "[0,4,8]", 4), Contains("has 3 data_offsets"));
  CHECK_THAT(one("F32", "[1]", "[4,8]", 8), Contains("begins at 4, after a hole from 0"));
  CHECK_THAT(one("F32", "[1000000000]", "[0,4000000000]", 4), Contains("cut off: the tensors need 4000000000 bytes"));

  const auto two = [](const std::string& first, const std::string& second, std::size_t data) {
    return header_refusal(R"({"a":)" + entry("F32", "[2]", first) + R"(,"b":)" + entry("F32", "[2]", second) + "}", data);
  };
  CHECK(two("[8,16]", "[0,8]", 16) == "accepted");
  CHECK_THAT(two("[0,8]", "[4,12]", 12), Contains("tensor \"b\" begins at 4, inside the one before, which ends at 8"));
  CHECK_THAT(two("[0,8]", "[0,8]", 8), Contains("tensor \"b\" begins at 0, inside"));
  CHECK_THAT(two("[0,8]", "[12,20]", 20), Contains("tensor \"b\" begins at 12, after a hole from 8"));
}

TEST_CASE("a file cut at any byte is refused, and so are most changed bytes of the header, without a crash") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  save_safetensors(path, some_tensors(2));
  const std::string bytes = read_file(path, 1 << 20);
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    bool refused = false;
    try {
      parse_safetensors(std::string_view(bytes).substr(0, n), "x");
    } catch (const Error&) {
      refused = true;
    }
    if (!refused) FAIL("cut to " << n << " bytes and accepted");
  }
  Random random(3, RandomStream::test);
  for (int round = 0; round < 3000; ++round) {
    std::string changed = bytes;
    changed[random.below(3000)] = static_cast<char>(random.bits());
    try {
      parse_safetensors(changed, "x");
    } catch (const Error&) {
    }
  }
}

TEST_CASE("a file that is cut while on disk is refused by the loader too") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  save_safetensors(path, some_tensors(4));
  const auto size = std::filesystem::file_size(path);
  for (const std::uint64_t n : {std::uint64_t{0}, std::uint64_t{4}, std::uint64_t{100}, size - 1}) {
    std::filesystem::resize_file(path, n);
    CHECK_THROWS_WITH(load_safetensors(path), Contains(path));
    save_safetensors(path, some_tensors(4));
  }
}

TEST_CASE("names that the format cannot hold are not saved") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  const Tensor one = full({1}, 1.0f);
  CHECK_THROWS_WITH(save_safetensors(path, {{{"\xff", one}}, {}}), Contains("cannot save a tensor named"));
  CHECK_THROWS_WITH(save_safetensors(path, {{{"__metadata__", one}}, {}}), Contains("__metadata__"));
  CHECK_THROWS_WITH(save_safetensors(path, {{}, {{"k", "\xc0\x80"}}}), Contains("not UTF-8"));
  CHECK_THROWS_WITH(save_safetensors(path, {{{"w", Tensor()}}, {}}), Contains("\"w\": it is undefined"));
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a full disk leaves the old checkpoint") {
  const TemporaryFolder folder;
  const std::string path = folder / "last.safetensors";
  const TensorFile file = some_tensors(5);
  save_safetensors(path, file);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      save_safetensors(path, {{{"w", full({50'000}, 1.0f)}}, {}});
    } catch (const Error& error) {
      ::_exit(std::string(error.what()).find(path) != std::string::npos ? 0 : 1);
    }
    ::_exit(2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(equal(load_safetensors(path), file));
  CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
}
