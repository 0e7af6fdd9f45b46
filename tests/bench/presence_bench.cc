// What a PresenceMap costs in its worst case: 1 TiB with every second 4 KiB block present.
//
// presence_bench [--benchmark_filter=REGEX].  The counter memory_MiB is
// PresenceMap::memory_bytes(); its limit, 64 MiB, is asserted by presence_map_test.

#include <benchmark/benchmark.h>
#include <glog/logging.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include "cachecore/values/presence_map.h"

namespace cachecore {
namespace {

constexpr uint64_t kObjectSize = uint64_t{1} << 40;
constexpr uint64_t kWindow = uint64_t{1} << 20;
constexpr double kMebibyte = 1 << 20;

std::unique_ptr<PresenceMap> Checkerboard() {
  PresenceLeaf leaf;
  for (uint32_t block = 0; block < PresenceLeaf::kBlocks; block += 2) leaf.Add(block, block + 1);
  const std::string encoded = leaf.Encode();
  auto map = std::make_unique<PresenceMap>(kObjectSize);
  for (uint32_t i = 0; i < kObjectSize / PresenceLeaf::kBytes; ++i) {
    const Status status = map->MergeLeaf(i, encoded);
    CHECK(status.ok()) << status.message();
  }
  return map;
}

// One for all benchmarks: building it takes longer than they do.
PresenceMap& SharedMap() {
  static const std::unique_ptr<PresenceMap> map = Checkerboard();
  return *map;
}

// A block aligned place, somewhere in the object.
uint64_t RandomPlace(std::mt19937_64* random) {
  return (*random)() % ((kObjectSize - kWindow) / kBlockSize) * kBlockSize;
}

// Runs `operation` at random places, which cost a cache miss or two each.
template <typename Operation>
void RunAtRandomPlaces(benchmark::State& state, Operation operation) {
  PresenceMap& map = SharedMap();
  std::mt19937_64 random(1);
  for (auto _ : state) benchmark::DoNotOptimize(operation(map, RandomPlace(&random)));
  state.counters["memory_MiB"] = static_cast<double>(map.memory_bytes()) / kMebibyte;
}

void BM_Covers(benchmark::State& state) {
  RunAtRandomPlaces(state, [](const PresenceMap& map, uint64_t at) {
    return map.Covers(ByteRange::At(at, kBlockSize));
  });
}
BENCHMARK(BM_Covers);

void BM_FirstMissing(benchmark::State& state) {
  RunAtRandomPlaces(state, [](const PresenceMap& map, uint64_t at) {
    return map.FirstMissing(ByteRange::At(at, kWindow));
  });
}
BENCHMARK(BM_FirstMissing);

void BM_GapsOf1MiB(benchmark::State& state) {
  RunAtRandomPlaces(state, [](const PresenceMap& map, uint64_t at) {
    return map.Gaps(ByteRange::At(at, kWindow)).size();
  });
}
BENCHMARK(BM_GapsOf1MiB);

// FirstMissing has a whole window to walk only where nothing is missing: one full leaf, by bitmap.
void BM_FirstMissingOf1MiBPresent(benchmark::State& state) {
  PresenceMap map(PresenceLeaf::kBytes);
  map.Add({0, PresenceLeaf::kBytes - kBlockSize});
  std::mt19937_64 random(1);
  const uint64_t places = (PresenceLeaf::kBytes - 2 * kWindow) / kBlockSize;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        map.FirstMissing(ByteRange::At(random() % places * kBlockSize, kWindow)));
  }
}
BENCHMARK(BM_FirstMissingOf1MiBPresent);

// Last, as it fills holes: at most one block an iteration of 2^28, so that the pattern stays.
void BM_Add(benchmark::State& state) {
  RunAtRandomPlaces(state, [](PresenceMap& map, uint64_t at) {
    return map.Add(ByteRange::At(at, kBlockSize)).size();
  });
}
BENCHMARK(BM_Add);

}  // namespace
}  // namespace cachecore

BENCHMARK_MAIN();
