#include "shrike/io/tensorboard.hpp"

#include <cmath>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "shrike/core/check.hpp"
#include "shrike/io/file.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using Catch::Matchers::Contains;

namespace {

// A decoder written from the formats' definitions, apart from the writer.
struct Field {
  std::uint64_t integer = 0;
  std::string bytes;  // of any other wire type
};
using Message = std::multimap<int, Field>;

std::uint64_t read_varint(std::string_view& in) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    REQUIRE(!in.empty());
    const auto byte = static_cast<unsigned char>(in[0]);
    in.remove_prefix(1);
    value |= std::uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

std::string take(std::string_view& in, std::size_t n) {
  REQUIRE(in.size() >= n);
  std::string bytes(in.substr(0, n));
  in.remove_prefix(n);
  return bytes;
}

Message decode(std::string_view in) {
  Message fields;
  while (!in.empty()) {
    const std::uint64_t key = read_varint(in);
    Field field;
    switch (key & 7) {
      case 0: field.integer = read_varint(in); break;
      case 1: field.bytes = take(in, 8); break;
      case 2: field.bytes = take(in, read_varint(in)); break;
      case 5: field.bytes = take(in, 4); break;
      default: FAIL("wire type " << (key & 7));
    }
    fields.emplace(static_cast<int>(key >> 3), field);
  }
  return fields;
}

template <class T> T as(const std::string& bytes) {
  REQUIRE(bytes.size() == sizeof(T));
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

std::vector<Message> events(const std::string& path) {
  const std::string bytes = read_file(path, 1 << 24);
  std::string_view in = bytes;
  std::vector<Message> messages;
  while (!in.empty()) {
    const std::string length = take(in, 8);
    CHECK(as<std::uint32_t>(take(in, 4)) == masked_crc32c(length));
    const std::string record = take(in, as<std::uint64_t>(length));
    CHECK(as<std::uint32_t>(take(in, 4)) == masked_crc32c(record));
    messages.push_back(decode(record));
  }
  return messages;
}

const Field& only(const Message& message, int field) {
  REQUIRE(message.count(field) == 1);
  return message.find(field)->second;
}

}  // namespace

TEST_CASE("CRC-32C gives the published answers") {
  CHECK(crc32c("") == 0);
  CHECK(crc32c("123456789") == 0xe3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);  // RFC 3720, B.4
  CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
  std::string counting;
  for (char c = 0; c < 32; ++c) counting += c;
  CHECK(crc32c(counting) == 0x46dd794eu);
}

TEST_CASE("events decode to what was written") {
  const TemporaryFolder folder;
  const double before = static_cast<double>(std::time(nullptr));
  std::string path;
  {
    EventWriter writer(folder / "runs/a");
    path = writer.path();
    writer.scalar("loss/total", 0.25f, 0);
    writer.scalar("loss/total", NAN, 1);
    writer.scalar("\xe2\x9c\x93", -1e-30f, 5'000'000'000);
    writer.image("detections", "not really a PNG", 480, 640, 300);
  }
  CHECK_THAT(path, Contains((folder / "runs/a") + "/events.out.tfevents."));
  const std::vector<Message> all = events(path);
  REQUIRE(all.size() == 5);
  for (const Message& event : all) {
    const double time = as<double>(only(event, 1).bytes);
    CHECK(time >= before);
    CHECK(time < before + 3600);
  }
  CHECK(only(all[0], 3).bytes == "brain.Event:2");
  const auto value = [&](std::size_t i) { return decode(only(decode(only(all[i], 5).bytes), 1).bytes); };
  CHECK(only(all[1], 2).integer == 0);
  CHECK(only(value(1), 1).bytes == "loss/total");
  CHECK(as<float>(only(value(1), 2).bytes) == 0.25f);
  CHECK(std::isnan(as<float>(only(value(2), 2).bytes)));
  CHECK(only(all[3], 2).integer == 5'000'000'000);
  CHECK(only(value(3), 1).bytes == "\xe2\x9c\x93");
  CHECK(as<float>(only(value(3), 2).bytes) == -1e-30f);
  const Message image = decode(only(value(4), 4).bytes);
  CHECK(only(image, 1).integer == 480);
  CHECK(only(image, 2).integer == 640);
  CHECK(only(image, 3).integer == 3);
  CHECK(only(image, 4).bytes == "not really a PNG");
}

TEST_CASE("a run that goes on writes a further file that says from where") {
  const TemporaryFolder folder;
  const std::string first = EventWriter(folder.path().string()).path();
  const std::string second = EventWriter(folder.path().string(), 101).path();
  const std::string third = EventWriter(folder.path().string(), 7).path();
  CHECK(first < second);
  CHECK(second < third);
  CHECK(events(first).size() == 1);
  const std::vector<Message> all = events(second);
  REQUIRE(all.size() == 2);
  CHECK(only(all[1], 2).integer == 101);
  CHECK(only(decode(only(all[1], 7).bytes), 1).integer == 1);  // SessionLog.START
}

TEST_CASE("records reach the file by size, by time and by flush") {
  const TemporaryFolder folder;
  SECTION("flush") {
    EventWriter writer(folder.path().string(), {}, std::chrono::hours(1));
    CHECK(events(writer.path()).size() == 1);
    writer.scalar("a", 1.0f, 1);
    CHECK(events(writer.path()).size() == 1);
    writer.flush();
    CHECK(events(writer.path()).size() == 2);
  }
  SECTION("size") {
    EventWriter writer(folder.path().string(), {}, std::chrono::hours(1));
    writer.image("a", std::string(70'000, 'x'), 1, 1, 1);
    CHECK(events(writer.path()).size() == 2);
  }
  SECTION("time") {
    EventWriter writer(folder.path().string(), {}, std::chrono::milliseconds(0));
    writer.scalar("a", 1.0f, 1);
    CHECK(events(writer.path()).size() == 2);
  }
}

TEST_CASE("a folder that cannot be written is an error") {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", "x");
  CHECK_THROWS_WITH(EventWriter(folder / "file"), Contains(folder / "file") && Contains("Not a directory"));
}
