// Messages of failures: their parts one after another.
#include "shrike/core/check.hpp"

namespace shrike::detail {

void Part::write(std::ostream& out) const {
  if (write_ != nullptr) {
    write_(out, value_);
  } else {
    out << static_cast<const char*>(value_);
  }
}

std::string join_parts(std::initializer_list<Part> parts) {
  std::ostringstream out;
  for (const Part& part : parts) part.write(out);
  return out.str();
}

void throw_error(std::initializer_list<Part> parts) { throw Error(join_parts(parts)); }

}  // namespace shrike::detail
