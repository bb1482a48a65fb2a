# How each library is found. On Debian and Ubuntu:
#   apt-get install libjpeg-dev libstb-dev libpugixml-dev nlohmann-json3-dev libcli11-dev catch2
find_package(Threads REQUIRED)
find_package(JPEG REQUIRED)
find_package(pugixml REQUIRED)
find_package(nlohmann_json REQUIRED)

find_path(SHRIKE_STB_INCLUDE stb/stb_image.h REQUIRED)

# Everything the library's sources use; none of it shows in Shrike's headers.
add_library(shrike_third_party INTERFACE)
target_include_directories(shrike_third_party SYSTEM INTERFACE ${SHRIKE_STB_INCLUDE})
target_link_libraries(shrike_third_party INTERFACE JPEG::JPEG pugixml::pugixml
                                                   nlohmann_json::nlohmann_json)
