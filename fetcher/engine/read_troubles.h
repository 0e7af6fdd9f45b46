// ReadTroubles: requests that have met failures: how long each may go on, and its last cause.
//
// Model    a READ, or the OPEN, has a trouble from its first failure until it makes progress or
//          ends.  Its budget runs from that failure on.  The daemon is told each new cause, and an
//          old one again once in a while: its answer shows which requests have been withdrawn.
//          Time is passed in.
// Errors   none.
// Threads  the event loop's.
// See      docs/protocol.md "What the fetcher does with an origin's answer".

#ifndef FETCHER_ENGINE_READ_TROUBLES_H_
#define FETCHER_ENGINE_READ_TROUBLES_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/values/ids.h"
#include "fetcher/transfer/retry_policy.h"

namespace fetcher {

class ReadTroubles {
 public:
  using Tell = std::function<void(cachecore::MsgId, const std::string& cause)>;

  // `budget` of each request, zero for ever; `tell_again`: how soon the same cause is told again.
  ReadTroubles(Duration budget, Duration tell_again, Tell tell)
      : budget_(budget), tell_again_(tell_again), tell_(std::move(tell)) {}

  // It has met a failure, and its budget runs.  Returns when that runs out, nullopt for never.
  std::optional<Duration> Met(cachecore::MsgId id, const std::string& cause, Duration now);
  // It waits for a reason that uses up no budget.
  void Waits(cachecore::MsgId id, const std::string& cause, Duration now);
  // The same, and told even if it was told a moment ago.
  void TellNow(cachecore::MsgId id, const std::string& cause);
  // It has made progress, or has ended.
  void Forget(cachecore::MsgId id) { troubles_.erase(id); }
  bool empty() const { return troubles_.empty(); }

  // Those whose budget has run out, with the last cause.
  std::vector<std::pair<cachecore::MsgId, std::string>> Exhausted(Duration now) const;
  // When budgets run out.
  std::vector<Duration> Deadlines() const;

 private:
  struct Trouble {
    RetryBudget budget;
    std::string cause = "";  // What the daemon was told last.
    Duration told_at = Duration::zero();
  };

  Trouble& Of(cachecore::MsgId id);

  const Duration budget_;
  const Duration tell_again_;
  const Tell tell_;
  std::map<cachecore::MsgId, Trouble> troubles_;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_READ_TROUBLES_H_
