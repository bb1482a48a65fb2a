// An image file's size without decoding it.
#pragma once

#include <string>

#include "shrike/data/image.hpp"

namespace shrike {

// The size that read_image(path) would have, EXIF's orientation applied. Reads the header of a JPEG or PNG; decodes anything
// else. Throws Error as read_image does, though damage behind the header goes unseen.
ImageSize read_image_size(const std::string& path);

}  // namespace shrike
