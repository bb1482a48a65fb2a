// The accesses of cp.async, in a file of its own that the sanitizers instrument, unlike the rest of the layer.
#pragma once

namespace shrike::cuda::host {

void spoil_bytes(void* to, unsigned bytes);  // all bits set
void deliver_bytes(void* to, const void* from, unsigned bytes);
void deliver_zeros(void* to, unsigned bytes);

}  // namespace shrike::cuda::host
