# shrike_options: how every target of this project is compiled.
add_library(shrike_options INTERFACE)
target_compile_options(shrike_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -fno-math-errno -fno-trapping-math)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  target_compile_options(shrike_options INTERFACE -Wno-stringop-overflow -Wno-array-bounds -Wno-restrict)  # false alarms of GCC 12
endif()
if(SHRIKE_WERROR)
  target_compile_options(shrike_options INTERFACE -Werror)
endif()
if(SHRIKE_NATIVE)
  target_compile_options(shrike_options INTERFACE -march=native)
endif()
if(SHRIKE_SANITIZE)
  target_compile_options(shrike_options INTERFACE -fsanitize=${SHRIKE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(shrike_options INTERFACE -fsanitize=${SHRIKE_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(shrike_options INTERFACE -Wno-maybe-uninitialized)  # false alarms in instrumented code
  endif()
endif()

# A compiler cache, where there is one, makes rebuilding in another folder quick.
find_program(SHRIKE_CCACHE ccache)
if(SHRIKE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${SHRIKE_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SHRIKE_CCACHE})
endif()
