#include "shrike/io/json.hpp"

#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "shrike/core/check.hpp"
#include "shrike/core/random.hpp"

using namespace shrike;
using Catch::Matchers::Contains;

TEST_CASE("the writer puts commas where they belong") {
  JsonWriter json;
  json.begin_object().field("image", "a \"b\".jpg").key("boxes").begin_array();
  json.begin_array().value(1.5f).value(-2).value(std::uint64_t{18446744073709551615u}).end_array();
  json.begin_object().end_object().begin_array().end_array().null().value(true).end_array().field("ok", false).end_object();
  CHECK(json.str() == R"({"image":"a \"b\".jpg","boxes":[[1.5,-2,18446744073709551615],{},[],null,true],"ok":false})");
  CHECK(JsonWriter().value(std::string("x")).str() == "\"x\"");
}

TEST_CASE("what is not JSON cannot be written") {
  CHECK_THROWS_AS(JsonWriter().str(), Error);
  CHECK_THROWS_AS(JsonWriter().begin_array().str(), Error);
  CHECK_THROWS_AS(JsonWriter().begin_array().end_object(), Error);
  CHECK_THROWS_AS(JsonWriter().end_array(), Error);
  CHECK_THROWS_AS(JsonWriter().key("a"), Error);
  CHECK_THROWS_AS(JsonWriter().begin_object().value(1), Error);
  CHECK_THROWS_AS(JsonWriter().begin_object().key("a").key("b"), Error);
  CHECK_THROWS_AS(JsonWriter().begin_object().key("a").end_object(), Error);
  CHECK_THROWS_AS(JsonWriter().value(1).value(2), Error);
}

TEST_CASE("numbers are short, read back the same, and are null where JSON has none") {
  CHECK(json_number(0.1f) == "0.1");
  CHECK(json_number(0.1) == "0.1");
  CHECK(json_number(static_cast<double>(0.1f)) == "0.10000000149011612");
  CHECK(json_number(1e300) == "1e+300");
  CHECK(json_number(-0.0) == "-0");
  CHECK(json_number(3.0) == "3");
  CHECK(json_number(std::numeric_limits<float>::quiet_NaN()) == "null");
  CHECK(json_number(-std::numeric_limits<double>::infinity()) == "null");
  Random random(1, RandomStream::test);
  for (int i = 0; i < 1000; ++i) {
    const auto bits = (std::uint64_t{random.bits()} << 32) | random.bits();
    const auto value = std::bit_cast<double>(bits);
    if (std::isfinite(value)) REQUIRE(nlohmann::json::parse(json_number(value)).get<double>() == value);
  }
}

TEST_CASE("text survives, and what is not UTF-8 is marked") {
  std::string text = "quote \" slash \\ / newline \n \t \r null ";
  text += '\0';
  for (char c = 1; c < 32; ++c) text += c;
  text += "\x7f \xc3\xa9 \xe2\x9c\x93 \xf0\x9f\x90\xa6 \xef\xbf\xbf \xf4\x8f\xbf\xbf";
  CHECK(is_utf8(text));
  CHECK(nlohmann::json::parse(json_quote(text)).get<std::string>() == text);
  CHECK(json_quote(text).find('\n') == std::string::npos);
  const std::string mark = "\xef\xbf\xbd";
  CHECK(json_quote("a\xff z") == "\"a" + mark + " z\"");
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xe2\x9c",
                          "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf0\x9f\x90"}) {
    CHECK_FALSE(is_utf8(bad));
    CHECK_THAT(json_quote(bad), Contains(mark));
    CHECK_NOTHROW(nlohmann::json::parse(json_quote(bad)));
  }
}
