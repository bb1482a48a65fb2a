# For find_package(shrike): the target shrike::shrike, and what it links to.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
find_dependency(JPEG)
find_dependency(pugixml)
find_library(SHRIKE_ONEDNN_LIBRARY dnnl REQUIRED)
if(NOT TARGET shrike::onednn)
  add_library(shrike::onednn UNKNOWN IMPORTED)
  set_target_properties(shrike::onednn PROPERTIES IMPORTED_LOCATION ${SHRIKE_ONEDNN_LIBRARY})
endif()
include(${CMAKE_CURRENT_LIST_DIR}/shrikeCuda.cmake OPTIONAL) # of a build by nvcc
include(${CMAKE_CURRENT_LIST_DIR}/shrikeTargets.cmake)
