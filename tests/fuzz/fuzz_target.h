// What a fuzz target is: libFuzzer's entry point over one decoder.  An ordinary build runs the same
// function over every file of the corpus (replay_main.cc), so that a find stays found.

#ifndef TESTS_FUZZ_FUZZ_TARGET_H_
#define TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

inline std::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

#endif  // TESTS_FUZZ_FUZZ_TARGET_H_
