// Dividing a data set anew, for protocols such as 9:1 in place of the official split.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shrike/data/dataset.hpp"

namespace shrike {

// "9:1" -> {9, 1}. Throws Error unless there are two or more whole numbers from 1 to 1,000,000.
std::vector<int> parse_ratio(const std::string& text);

// Divides the samples at random into parts of these proportions, each in the order of `dataset`. Which sample goes where
// depends on the set of ids, the ratio and the seed alone, not on the order of the samples. With n samples the first k parts
// together have round(n * share) of them. Throws Error when a part would be empty.
std::vector<Dataset> split_dataset(const Dataset& dataset, const std::vector<int>& ratio, std::uint64_t seed);

}  // namespace shrike
