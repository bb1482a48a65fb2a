#include "kernels/host/async_bytes.hpp"

namespace shrike::cuda::host {

// Words of 4 bytes: what cp.async copies at the least, and is aligned to.
void spoil_bytes(void* to, unsigned bytes) {
  for (unsigned i = 0; i < bytes / 4; ++i) static_cast<unsigned*>(to)[i] = 0xffffffffu;
}

void deliver_bytes(void* to, const void* from, unsigned bytes) {
  for (unsigned i = 0; i < bytes / 4; ++i) static_cast<unsigned*>(to)[i] = static_cast<const unsigned*>(from)[i];
}

void deliver_zeros(void* to, unsigned bytes) {
  for (unsigned i = 0; i < bytes / 4; ++i) static_cast<unsigned*>(to)[i] = 0;
}

}  // namespace shrike::cuda::host
