# holdfast_options: language level, warnings and sanitizers, linked by every target of the tree.
add_library(holdfast_options INTERFACE)
target_compile_features(holdfast_options INTERFACE cxx_std_20)
target_include_directories(holdfast_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(holdfast_options INTERFACE
  _GNU_SOURCE FUSE_USE_VERSION=314 HOLDFAST_VERSION="${PROJECT_VERSION}")
target_compile_options(holdfast_options INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wold-style-cast -Wnon-virtual-dtor)

set(HOLDFAST_SANITIZE "" CACHE STRING "Sanitizers to build with: address;undefined or thread")
if(HOLDFAST_SANITIZE)
  string(REPLACE ";" "," sanitize_list "${HOLDFAST_SANITIZE}")
  target_compile_options(holdfast_options INTERFACE
    -fsanitize=${sanitize_list} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(holdfast_options INTERFACE -fsanitize=${sanitize_list})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # Instrumented code hides from GCC that a variant's other members are not read.
    target_compile_options(holdfast_options INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()

# GCC 12 sees overlaps in std::string's own insert when it inlines for the release (its bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_BUILD_TYPE STREQUAL Release)
  target_compile_options(holdfast_options INTERFACE -Wno-restrict)
endif()

if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(holdfast_options INTERFACE -Wthread-safety -Werror=thread-safety)
endif()

# The presets of developers switch it on; a newer compiler must not fail the build of a user.
option(HOLDFAST_WERROR "Treat warnings as errors" OFF)
if(HOLDFAST_WERROR)
  target_compile_options(holdfast_options INTERFACE -Werror)
endif()

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(MOLD mold)
if(MOLD)
  target_link_options(holdfast_options INTERFACE -fuse-ld=mold)
endif()
