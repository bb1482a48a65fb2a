// Dividing a data set anew, for protocols such as 9:1 in place of the official split.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "shrike/data/dataset.hpp"

namespace shrike {

// "9:1" -> {9, 1}. Throws Error unless there are two or more whole numbers from 1 to 1,000,000.
std::vector<int> parse_ratio(const std::string& text);

// Divides the samples at random into parts of these proportions, each in the order of `dataset`. Which sample goes where
// depends on the set of ids, the ratio and the seed alone, not on the order of the samples. With n samples the first k parts
// together have round(n * share) of them. Throws Error when a part would be empty.
std::vector<Dataset> split_dataset(const Dataset& dataset, const std::vector<int>& ratio, std::uint64_t seed);

// Takes round(n * fraction) of n images out, at least one, and leaves at least one: {the others, those}, each in the order of
// `dataset`. Classes stand in both as nearly in proportion as can be: the class that is left in the fewest images is divided
// first, each image going where more are wanted (iterative stratification: Sechidis, Tsoumakas and Vlahavas, "On the
// Stratification of Multi-Label Data", 2011). Depends on the samples' ids and labels, the fraction and the seed alone, not on
// their order. Throws Error unless 0 < fraction < 1 and there are two images.
std::pair<Dataset, Dataset> hold_out(const Dataset& dataset, double fraction, std::uint64_t seed);

// How many samples of `some` are also in `others`: of the same id and size, with the same boxes.
std::int64_t count_shared(const Dataset& some, const Dataset& others);

}  // namespace shrike
