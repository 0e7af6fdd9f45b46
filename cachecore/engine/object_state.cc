#include "cachecore/engine/object_state.h"

namespace cachecore {

std::optional<ObjectState> NextState(ObjectState state, ObjectEvent event) {
#define HOLDFAST_TRANSITION(from, on, to)                             \
  if (state == ObjectState::k##from && event == ObjectEvent::k##on) { \
    return ObjectState::k##to;                                        \
  }
#include "cachecore/engine/object_state.def"
  return std::nullopt;
}

const char* Name(ObjectState state) {
  switch (state) {
#define HOLDFAST_STATE(name, prose) \
  case ObjectState::k##name:        \
    return #name;
#include "cachecore/engine/object_state.def"
  }
  return "?";
}

const char* Name(ObjectEvent event) {
  switch (event) {
#define HOLDFAST_EVENT(name, prose) \
  case ObjectEvent::k##name:        \
    return #name;
#include "cachecore/engine/object_state.def"
  }
  return "?";
}

}  // namespace cachecore
