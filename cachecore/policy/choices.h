// Choices: what an operator has chosen of a cache while it ran: its limits, and its pins.
//
// Model    a limit that was chosen counts in place of the flag, until it is taken back.  A pinned
//          object is not culled.  A pin is of a name: the object that takes another's place has it.
// Errors   EROFS where the store's disk takes no writes; the store's own.  Nothing has changed
//          then.  A damaged record of a pin is a pin; one of a limit is as if it were not there.
//          Where no record can be read, every object counts as pinned in this life, and pins can't
//          be changed (EIO).
// Threads  thread-safe.  Looking up does no I/O and may be done with GuardedEngine::mu held.
// Owns     nothing; the store outlives it.
// Crash    recorded with a sync before it counts.
// See      docs/design.md "Culling"; docs/format.md.

#ifndef CACHECORE_POLICY_CHOICES_H_
#define CACHECORE_POLICY_CHOICES_H_

#include <optional>
#include <set>
#include <string>
#include <utility>

#include "cachecore/base/mutex.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/base/status.h"
#include "cachecore/store/metadata_store.h"

namespace cachecore {

// Of each limit what was chosen, if it was.
struct ChosenLimits {
  std::optional<SizeOrPercent> max;
  std::optional<SizeOrPercent> min_free;
};

// What to do about one limit: nothing, or to choose it, or to take the choice back.
struct LimitChange {
  bool is_given = false;
  std::optional<SizeOrPercent> value = std::nullopt;
};
// "" nothing; "none"; "default", which takes it back; else as ParseSizeOrPercent.
Result<LimitChange> ParseLimitChange(const std::string& text);
// As it is parsed: "none", "5%" or a number of bytes.
std::string LimitText(const SizeOrPercent& limit);

class Choices {
 public:
  explicit Choices(MetadataStore* store) : store_(store) {}

  // What earlier daemons have recorded.  Before everything else.
  void Load() EXCLUDES(mu_);

  ChosenLimits limits() const EXCLUDES(mu_);
  // Both or neither.
  Status ChangeLimits(const LimitChange& max, const LimitChange& min_free) EXCLUDES(mu_);

  bool IsPinned(const std::string& volume, const std::string& cookie) const EXCLUDES(mu_);
  Status SetPinned(const std::string& volume, const std::string& cookie, bool pinned)
      EXCLUDES(change_mu_, mu_);

 private:
  Status Commit(const MetadataBatch& batch);

  MetadataStore* const store_;
  Mutex change_mu_;  // Held over the record and its part in memory.
  mutable Mutex mu_;
  bool are_unread_ GUARDED_BY(mu_) = false;
  ChosenLimits limits_ GUARDED_BY(mu_);
  std::set<std::pair<std::string, std::string>> pins_ GUARDED_BY(mu_);  // Volume and cookie.
};

// A choice's name and value as records, for what reads a cache offline.
std::string PinName(const std::string& volume, const std::string& cookie);

}  // namespace cachecore

#endif  // CACHECORE_POLICY_CHOICES_H_
