// Grants: the names that a look-up may find, and for how long.
//
// Model    `acquire` on the control socket grants a name: for good, or on loan for as long as the
//          mount that asks for it may take.  A granted name has an id, which is never given again
//          in the life of the FUSE connection and names a directory with this one object in it.
// Units    times by Clock::Now(), which goes on from one process to the next.
// Errors   a grant that cannot be written down is not made; the sentence names the file.  What is
//          taken back is taken back at once, and written down by Expire once the disk takes it: a
//          daemon that dies before has it granted still.
// Threads  thread-safe.  Looking up does no I/O and may be done with GuardedEngine::mu held.
// Owns     its file, in the run directory.
// Crash    written before it counts, so the next daemon on the same FUSE connection finds it.  A
//          new connection starts with none.
// See      docs/design.md "The FUSE side"; docs/semantics.md "Look-up".

#ifndef FUSEFS_SERVER_GRANTS_H_
#define FUSEFS_SERVER_GRANTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"

namespace fusefs {

struct GrantName {
  std::string volume;
  std::string object;
  friend auto operator<=>(const GrantName&, const GrantName&) = default;
};

class Grants {
 public:
  // With `resumed`, takes up what an earlier daemon has granted; else starts with none.
  static cachecore::Result<std::unique_ptr<Grants>> Open(std::string path,
                                                         const cachecore::Clock& clock,
                                                         bool resumed);

  // Both return the name's id.
  cachecore::Result<uint64_t> Keep(const GrantName& name) EXCLUDES(write_mu_, mu_);
  cachecore::Result<uint64_t> Lend(const GrantName& name, cachecore::Duration time)
      EXCLUDES(write_mu_, mu_);
  // Takes it back, kept or lent.  No-op for a name that has no grant.
  void Release(const GrantName& name) EXCLUDES(write_mu_, mu_);
  // Forgets loans that have ended; writes down what could not be written before.
  void Expire() EXCLUDES(write_mu_, mu_);

  bool Has(const GrantName& name) const EXCLUDES(mu_);
  bool HasVolume(const std::string& volume) const EXCLUDES(mu_);
  bool HasAny() const EXCLUDES(mu_);
  std::optional<GrantName> Find(uint64_t id) const EXCLUDES(mu_);

 private:
  struct Grant {
    uint64_t id = 0;
    bool kept = false;
    cachecore::Duration lent_until{0};
  };
  struct Table {
    uint64_t next_id = 1;
    std::map<GrantName, Grant> by_name;
    std::map<uint64_t, GrantName> by_id;
  };

  Grants(std::string path, const cachecore::Clock& clock) : path_(std::move(path)), clock_(clock) {}
  using Edit = std::function<void(Table*)>;
  // Makes a new table, writes it, and only then shows it.
  cachecore::Status Change(const Edit& change) EXCLUDES(write_mu_, mu_);
  // The same, but shows it also when it could not be written.
  void TakeBack(const Edit& change) EXCLUDES(write_mu_, mu_);
  void NoteSaved(const cachecore::Status& saved) REQUIRES(write_mu_);
  void Show(std::shared_ptr<const Table> table) EXCLUDES(mu_);
  cachecore::Result<uint64_t> Give(const GrantName& name, const std::function<void(Grant*)>& give)
      EXCLUDES(write_mu_, mu_);
  cachecore::Status Save(const Table& table) const;
  void Load() EXCLUDES(write_mu_, mu_);
  std::shared_ptr<const Table> Now() const EXCLUDES(mu_);
  bool IsGood(const Grant& grant) const { return grant.kept || grant.lent_until > clock_.Now(); }

  const std::string path_;
  const cachecore::Clock& clock_;
  cachecore::Mutex write_mu_;                   // Held over the write; before mu_.
  bool unsaved_ GUARDED_BY(write_mu_) = false;  // The file is behind the table.
  mutable cachecore::Mutex mu_;
  std::shared_ptr<const Table> table_ GUARDED_BY(mu_) = std::make_shared<const Table>();
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_GRANTS_H_
