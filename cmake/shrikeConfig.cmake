# For find_package(shrike): the target shrike::shrike, and what it links to.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
find_dependency(JPEG)
find_dependency(pugixml)
include(${CMAKE_CURRENT_LIST_DIR}/shrikeCuda.cmake OPTIONAL) # of a build by nvcc
include(${CMAKE_CURRENT_LIST_DIR}/shrikeTargets.cmake)
