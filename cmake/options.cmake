# shrike_options: how every target of this project is compiled.
add_library(shrike_options INTERFACE)
function(shrike_cxx_options)  # for C++; nvcc hands them to its host compiler
  foreach(option IN LISTS ARGN)
    target_compile_options(shrike_options INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:${option}> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${option}>)
  endforeach()
endfunction()
# No multiplication and addition is contracted but where the code says so: results are the same bits with any instruction set.
shrike_cxx_options(-Wall -Wextra -Wshadow -fno-math-errno -fno-trapping-math -ffp-contract=off)
target_compile_options(shrike_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  shrike_cxx_options(-Wno-stringop-overflow -Wno-array-bounds -Wno-restrict)  # false alarms of GCC 12
endif()
if(SHRIKE_WERROR)
  shrike_cxx_options(-Werror)
  target_compile_options(shrike_options INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(SHRIKE_NATIVE)
  shrike_cxx_options(-march=native)
endif()
if(SHRIKE_SANITIZE)
  shrike_cxx_options("-fsanitize=${SHRIKE_SANITIZE}" -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(shrike_options INTERFACE -fsanitize=${SHRIKE_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    shrike_cxx_options(-Wno-maybe-uninitialized)  # false alarms in instrumented code
  endif()
endif()

# A compiler cache, where there is one, makes rebuilding in another folder quick.
find_program(SHRIKE_CCACHE ccache)
if(SHRIKE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${SHRIKE_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SHRIKE_CCACHE})
endif()

# For a folder of programs whose own code takes longer to compile than to run: in a release build it is optimized less than the
# library, and where sanitizers instrument it not at all.
macro(shrike_compile_quickly)
  if(CMAKE_BUILD_TYPE STREQUAL Release)
    if(SHRIKE_SANITIZE)
      add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-O0>)
    else()
      add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-O1>)
    endif()
  endif()
endmacro()
