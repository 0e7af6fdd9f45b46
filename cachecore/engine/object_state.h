// ObjectState: where an object stands towards the fetcher, as one table.
//
// Model    states, events and transitions of object_state.def.  Nothing else changes a state.
// Errors   NextState is nullopt for a pair that the table does not list.
// See      docs/semantics.md "Objects"; every state x event pair in object_state_test.cc.

#ifndef CACHECORE_ENGINE_OBJECT_STATE_H_
#define CACHECORE_ENGINE_OBJECT_STATE_H_

#include <cstdint>
#include <optional>

namespace cachecore {

enum class ObjectState : uint8_t {
#define HOLDFAST_STATE(name, prose) k##name,
#include "cachecore/engine/object_state.def"
};

enum class ObjectEvent : uint8_t {
#define HOLDFAST_EVENT(name, prose) k##name,
#include "cachecore/engine/object_state.def"
};

std::optional<ObjectState> NextState(ObjectState state, ObjectEvent event);
const char* Name(ObjectState state);
const char* Name(ObjectEvent event);

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_OBJECT_STATE_H_
