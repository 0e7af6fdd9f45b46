// ObjectNames: which objects in memory have which name.
//
// Model    volume and cookie name one object.  Beside it there may be its successor, which gets the
//          name when its OPEN is answered.  An object that is not in memory is found by name in the
//          store.
// Threads  thread-compatible; guarded by GuardedEngine::mu.
// Cost     a hash look-up; Forget looks at every successor.
// Crash    memory only.

#ifndef CACHECORE_CACHE_OBJECT_NAMES_H_
#define CACHECORE_CACHE_OBJECT_NAMES_H_

#include <optional>
#include <string>
#include <unordered_map>

#include "cachecore/engine/engine.h"
#include "cachecore/values/ids.h"

namespace cachecore {

class ObjectNames {
 public:
  std::optional<ObjectNumber> Find(ObjectNumber volume, const std::string& cookie) const;
  void Set(ObjectNumber volume, const std::string& cookie, ObjectNumber number);
  void Remove(ObjectNumber volume, const std::string& cookie);

  // The object that is being opened to take the place of `known`.
  std::optional<ObjectNumber> FindSuccessor(ObjectNumber known) const;
  void SetSuccessor(ObjectNumber known, ObjectNumber successor);

  // The object has left memory.
  void Forget(const Effects::Forgotten& object);

 private:
  std::unordered_map<std::string, ObjectNumber> by_name_;  // By volume and cookie.
  std::unordered_map<ObjectNumber, ObjectNumber> successors_;
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_OBJECT_NAMES_H_
