// OriginSet: the origins of one open object, which of them failed how, and which is asked next.
//
// Model    an origin serves, waits out a failure (retry_at), or is out: it has refused what was in
//          line by then.  A report of another version is doubted until the origin has repeated it
//          three times over some seconds.  The next one to be asked is the one that has failed
//          least, the first of the list among equals.  Time is passed in; nothing is sent or
//          fetched here.
// Errors   none: a failure is an argument.
// Threads  the event loop's.
// Owns     a share of each origin.
// See      docs/protocol.md "What the fetcher does with an origin's answer".

#ifndef FETCHER_ENGINE_ORIGIN_SET_H_
#define FETCHER_ENGINE_ORIGIN_SET_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "cachecore/base/clock.h"
#include "fetcher/origins/source_table.h"
#include "fetcher/transfer/backend.h"
#include "fetcher/transfer/retry_policy.h"

namespace fetcher {

// A bit for each origin of an object, of which there are 16 at most.
using OriginMask = uint32_t;

class OriginSet {
 public:
  struct Options {
    Duration retry_first;
    Duration retry_cap;
    // An origin has changed when it has said so three times, at least so far apart in all.
    Duration confirm_change;
  };

  // `random` outlives this.
  OriginSet(std::vector<std::shared_ptr<Origin>> origins, const Options& options,
            std::mt19937* random);

  const std::shared_ptr<Origin>& at(size_t index) const { return states_[index].origin; }
  bool HasName(const std::string& name) const;
  OriginMask all() const;
  // Those that have refused what came then: see FetchQueue::Add.
  OriginMask OutMask(uint64_t came) const;
  // The URLs of `key` at the origins of `mask`.
  std::string Describe(OriginMask mask, const std::string& key) const;

  // The origin to use now for what came then, or nullopt.
  std::optional<size_t> Pick(OriginMask without, uint64_t came, Duration now) const;
  // One that is being probed is busy.
  void SetProbing(size_t index, bool is_probing) { states_[index].is_probing = is_probing; }
  bool IsAnyProbing() const;
  // Its last answer is doubted, so that it is asked by a new connection.
  bool IsDoubted(size_t index) const { return states_[index].doubt.has_value(); }

  // It serves the version that is wanted.
  void Served(size_t index);
  // It has brought wrong bytes: others come first from now on.
  void Demote(size_t index) { (void)states_[index].policy.NextDelay(); }
  // The failure that an answer "the object has changed" counts as: the same one, or one to retry,
  // while it is doubted and always if the object is named by a digest.
  Failure JudgeChange(size_t index, Failure failure, bool is_named_by_digest, Duration now);
  // Notes a failure.  One that may pass is waited out.
  void Failed(size_t index, const Failure& failure, Duration now);
  // Is not asked for what came up to then.
  void PutOut(size_t index, uint64_t came) { states_[index].out_through = came; }

  // When an origin is tried again.
  Duration RetryAt(size_t index) const { return states_[index].retry_at; }
  size_t size() const { return states_.size(); }
  // Whether every one of them is waiting out a failure.
  bool AreAllWaiting(Duration now) const;
  // When the last one came that every origin is out for; nullopt for none.
  std::optional<uint64_t> RefusedThrough() const;
  // REQUIRES: an origin has failed.
  const Failure& WorstFailure() const;

 private:
  // A report of an origin that it has another version.
  struct Doubt {
    static constexpr int kEnough = 3;
    std::string cause;
    Duration first;
    Duration last;
    int times = 1;
  };
  struct State {
    std::shared_ptr<Origin> origin;
    RetryPolicy policy;
    Duration retry_at = Duration::zero();
    std::optional<Failure> failure = std::nullopt;  // The last one, until it serves again.
    // Refused or changed: not asked for what had come by then.
    std::optional<uint64_t> out_through = std::nullopt;
    std::optional<Doubt> doubt = std::nullopt;  // Until it serves the pinned version again.
    bool is_probing = false;
  };

  const Duration confirm_change_;
  std::vector<State> states_;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_ORIGIN_SET_H_
