// ObjectFacts: what an origin says of an object besides its size.  Immutable values.

#ifndef CACHECORE_VALUES_OBJECT_FACTS_H_
#define CACHECORE_VALUES_OBJECT_FACTS_H_

#include <cstdint>

namespace cachecore {

struct ObjectFacts {
  uint64_t modified_s = 0;  // Since 1970; 0 with 0 ns is not known.
  uint32_t modified_ns = 0;
  bool has_validator = true;  // One version is told from the next: a mount need not ask again.

  friend bool operator==(const ObjectFacts&, const ObjectFacts&) = default;
};

}  // namespace cachecore

#endif  // CACHECORE_VALUES_OBJECT_FACTS_H_
