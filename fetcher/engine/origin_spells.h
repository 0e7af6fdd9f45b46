// OriginSpells: says in the log when an origin begins to fail, and when it serves again.
//
// Model    a spell of a place (scheme and authority of the origins' URLs) begins with its first
//          failure.  It ends when the place serves and its last failure is kCalm ago, so that one
//          that fails now and then is one spell.  A spell costs two lines, for all objects, and one
//          more where the place has served in it and for kCalm only fails: an object that is broken
//          hides no outage.
// Threads  the event loop's.
// Cost     one comparison for what is served while nothing fails.
// Crash    nothing: the next fetcher begins without spells.

#ifndef FETCHER_ENGINE_ORIGIN_SPELLS_H_
#define FETCHER_ENGINE_ORIGIN_SPELLS_H_

#include <cstdint>
#include <map>
#include <string>

#include "cachecore/base/clock.h"

namespace fetcher {

class OriginSpells {
 public:
  static constexpr cachecore::Duration kCalm = std::chrono::seconds(10);

  // `origin`: a URL without secrets, `cause`: for people.
  void Failed(const std::string& origin, const std::string& cause, cachecore::Duration now);
  void Served(const std::string& origin, cachecore::Duration now);

 private:
  struct Spell {
    cachecore::Duration since;
    cachecore::Duration last;
    uint64_t failures = 0;
    bool has_served = false;  // Since the last line.
    cachecore::Duration served{0};
  };
  std::map<std::string, Spell> spells_;  // By place.
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_ORIGIN_SPELLS_H_
