#include "shrike/core/op.hpp"

namespace shrike {
namespace {

struct Printer : Fields {
  std::ostringstream out;

  void operator()(const char* name, std::int64_t& value) override { out << ' ' << name << '=' << value; }
  void operator()(const char* name, double& value) override { out << ' ' << name << '=' << value; }
  void operator()(const char* name, bool& value) override { out << ' ' << name << '=' << (value ? "true" : "false"); }
  void operator()(const char* name, std::string& value) override { out << ' ' << name << "=\"" << value << '"'; }
  void operator()(const char* name, std::vector<std::int64_t>& value) override {
    out << ' ' << name << "=[";
    for (std::size_t i = 0; i < value.size(); ++i) out << (i ? ", " : "") << value[i];
    out << ']';
  }
};

}  // namespace

Tensors Op::backward(const BackwardContext&) const { fail("the operation ", name(), " has no gradient"); }

std::string to_string(const Op& op) {
  Printer printer;
  printer.out << op.name();
  const_cast<Op&>(op).visit(printer);  // the printer only reads
  return printer.out.str();
}

}  // namespace shrike
