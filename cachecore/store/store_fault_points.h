// FaultPointsOf: which fault points a commit of the metadata store passes.

#ifndef CACHECORE_STORE_STORE_FAULT_POINTS_H_
#define CACHECORE_STORE_STORE_FAULT_POINTS_H_

#include <utility>
#include <vector>

#include "cachecore/base/fault_point.h"
#include "cachecore/store/metadata_store.h"

namespace cachecore {

// The fault points that a commit passes before and after it, by what is in it; none while none is
// armed.
std::vector<std::pair<Fault, Fault>> FaultPointsOf(const MetadataBatch& batch);

}  // namespace cachecore

#endif  // CACHECORE_STORE_STORE_FAULT_POINTS_H_
