// The seed of a randomised test: $HOLDFAST_SEED, or a fresh one; printed so that a failure can be
// had again.

#ifndef TESTS_CACHECORE_ENGINE_SEED_H_
#define TESTS_CACHECORE_ENGINE_SEED_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

inline uint64_t TestSeed() {
  const char* given = std::getenv("HOLDFAST_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("HOLDFAST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

#endif  // TESTS_CACHECORE_ENGINE_SEED_H_
