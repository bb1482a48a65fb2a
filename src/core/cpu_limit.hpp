// How many processors this process may use.
#pragma once

#include <string>

namespace shrike {

// Processors of the affinity mask, limited by the quotas of the control groups of this process (versions 1 and 2), rounded up;
// at least 1. A file that is missing or odd sets no limit.
int cpu_limit();

// The same with so many processors in the mask, and /proc and the mounted groups looked for below `root`.
int cpu_limit(const std::string& root, int processors);

}  // namespace shrike
