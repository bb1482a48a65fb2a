// Settings: structs whose visit(v) calls v(name, value, help) for each field. Here they become command-line options, a TOML
// file and the metadata of a checkpoint.
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <map>
#include <string>
#include <vector>

#include "shrike/core/check.hpp"

namespace shrike::apps {

// Adds an option --name (or a flag --name, --no-name) for every setting.
struct OptionAdder {
  CLI::App& app;
  std::string group;

  template <class T> void operator()(const std::string& name, T& value, const std::string& help) {
    app.add_option("--" + name, value, help)->capture_default_str()->group(group)->take_last();
  }
  void operator()(const std::string& name, bool& value, const std::string& help) {
    app.add_flag("--" + name + ",!--no-" + name, value, help)->capture_default_str()->group(group);
  }
  template <class T> void operator()(const std::string& name, std::vector<T>& value, const std::string& help) {
    app.add_option("--" + name, value, help)->capture_default_str()->group(group)->delimiter(',')->expected(1, 1000);
  }
};

// Writes every setting as text that TextReader reads back to the same value.
struct TextWriter {
  std::map<std::string, std::string>& text;
  std::string prefix;

  template <class T> void operator()(const std::string& name, const T& value, const std::string&) {
    text[prefix + name] = print(value);
  }

  static std::string print(const std::string& value) { return value; }
  static std::string print(bool value) { return value ? "true" : "false"; }
  template <class T> static std::string print(const T& value) {
    char buffer[64];
    return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
  }
  template <class T> static std::string print(const std::vector<T>& values) {
    std::string joined;
    for (const T& value : values) joined += (joined.empty() ? "" : ",") + print(value);
    return joined;
  }
};

// Reads every setting from what TextWriter wrote. Throws Error naming the file and the setting that is missing or does not
// parse.
struct TextReader {
  const std::map<std::string, std::string>& text;
  std::string prefix;
  std::string file;

  template <class T> void operator()(const std::string& name, T& value, const std::string&) {
    const auto found = text.find(prefix + name);
    SHRIKE_CHECK(found != text.end(), file, ": the setting '", prefix, name, "' is missing from its metadata");
    SHRIKE_CHECK(parse(found->second, value), file, ": the setting '", prefix, name, "' has the value '", found->second,
                 "', which does not parse");
  }

  static bool parse(const std::string& from, std::string& value) {
    value = from;
    return true;
  }
  static bool parse(const std::string& from, bool& value) {
    value = from == "true";
    return from == "true" || from == "false";
  }
  template <class T> static bool parse(const std::string& from, T& value) {
    const auto result = std::from_chars(from.data(), from.data() + from.size(), value);
    return result.ec == std::errc() && result.ptr == from.data() + from.size();
  }
  template <class T> static bool parse(const std::string& from, std::vector<T>& values) {
    values.clear();
    std::size_t begin = 0;
    while (!from.empty() && begin <= from.size()) {
      const std::size_t end = std::min(from.find(',', begin), from.size());
      T value;
      if (!parse(from.substr(begin, end - begin), value)) return false;
      values.push_back(value);
      begin = end + 1;
    }
    return true;
  }
};

// Writes every setting as a line of TOML (toml.io) below its help, for --config to read again.
struct TomlWriter {
  std::string& out;

  template <class T> void operator()(const std::string& name, const T& value, const std::string& help) {
    const std::string text = print(value);
    if (text == "[]") return;  // the default of every list that may be empty
    if (!help.empty()) out += "# " + help + "\n";
    out += name + " = " + text + "\n";
  }

  // A literal string unless that is impossible, so that backslashes mean themselves.
  static std::string print(const std::string& value) {
    const char quote = value.find('\'') == std::string::npos ? '\'' : '"';
    return quote + value + quote;
  }
  template <class T> static std::string print(const T& value) { return TextWriter::print(value); }
  template <class T> static std::string print(const std::vector<T>& values) {
    std::string joined;
    for (const T& value : values) joined += (joined.empty() ? "" : ", ") + print(value);
    return "[" + joined + "]";
  }
};

// Runs an application's main: prints a failure as one line on standard error. Exit status 1; wrong usage exits with 2.
template <class F> int guarded_main(const char* program, const F& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    std::cerr << program << ": " << error.what() << std::endl;
    return 1;
  }
}

// CLI11's parse with our exit statuses: 0 after --help, 2 for wrong usage; -1 to go on.
inline int parse_command_line(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return -1;
  } catch (const CLI::FileError& error) {
    std::cerr << app.get_name() << ": " << error.what() << std::endl;
    return 1;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
}

}  // namespace shrike::apps
