// UseRecord: when the parts of one leaf of an object were last used, as it is kept on disk.
//
// Model    a leaf of 128 MiB (PresenceLeaf) is a row of 32 parts of 4 MiB.
// Units    seconds since 1970; 0 is not known.
// Threads  a value.
// See      docs/format.md.

#ifndef CACHECORE_VALUES_USE_RECORD_H_
#define CACHECORE_VALUES_USE_RECORD_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "cachecore/values/ids.h"
#include "cachecore/values/presence_leaf.h"

namespace cachecore {

struct UseRecord {
  static constexpr uint64_t kPartBytes = 4 << 20;
  static constexpr size_t kParts = PresenceLeaf::kBytes / kPartBytes;

  ObjectNumber object;
  uint32_t leaf = 0;
  std::array<uint32_t, kParts> seconds{};
};

}  // namespace cachecore

#endif  // CACHECORE_VALUES_USE_RECORD_H_
