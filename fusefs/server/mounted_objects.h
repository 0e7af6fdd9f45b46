// MountedObjects: which objects the EROFS file systems of `holdfast mount-erofs` use.
//
// Model    a file system is known by its device number and uses one or more objects.  Each mount
//          that is being made has a claim of each of its objects, which ends with the mount's
//          process, and after a while.  When the last file system that uses an object is gone,
//          however it was unmounted, and no claim is left, the object's use ends.
// Errors   a use that cannot be written down is not taken.
// Threads  thread-safe.  The callbacks are called with the lock held and call nothing of this
//          class.
// Owns     its file, in the run directory.
// Crash    written before it counts, so that the next daemon on the same FUSE connection notices an
//          unmount that this one has not seen, or the end of a process that has a claim.
// See      docs/cachefiles-compat.md.

#ifndef FUSEFS_SERVER_MOUNTED_OBJECTS_H_
#define FUSEFS_SERVER_MOUNTED_OBJECTS_H_

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/pid_stamp.h"
#include "fusefs/server/grants.h"

namespace fusefs {

class MountedObjects {
 public:
  // With `resumed`, takes over what an earlier daemon has noted.  `on_end`: an object is not used
  // any more.  `close`, after it, is called until it returns true.
  MountedObjects(std::string path, const cachecore::Clock& clock, bool resumed,
                 std::function<void(const GrantName&)> on_end,
                 std::function<bool(const GrantName&)> close);

  // Whether a file system uses it now.
  bool Has(const GrantName& name) EXCLUDES(mu_);
  // Where such a file system is mounted; "" where this mount namespace does not show it.
  std::string PlaceOf(const GrantName& name) EXCLUDES(mu_);
  // `owner`, a process, is about to mount it, within `time`.  Of an owner that is not known the
  // time alone ends the claim.
  void Claim(const GrantName& name, cachecore::Duration time, const cachecore::PidStamp& owner = {})
      EXCLUDES(mu_);
  // Ends one claim of the owner's, and the object's use where nothing else uses it.
  void Release(const GrantName& name, const cachecore::PidStamp& owner = {}) EXCLUDES(mu_);
  // The file system `superblock`, "MAJOR:MINOR", uses these objects, in place of one claim of the
  // owner's of each.
  cachecore::Status Add(const std::string& superblock, const std::vector<GrantName>& names,
                        const cachecore::PidStamp& owner = {}) EXCLUDES(mu_);
  // Ends the use of objects whose file systems are gone.  Cheap where nothing has changed.
  void Sweep() EXCLUDES(mu_);

 private:
  struct OneClaim {
    cachecore::PidStamp owner;
    cachecore::Duration until{0};
  };
  struct Use {
    std::set<std::string> superblocks;
    std::vector<OneClaim> claims;  // Of each mount that is being made.
  };
  using Uses = std::map<GrantName, Use>;

  static void EndClaim(Use* use, const cachecore::PidStamp& owner);
  static bool EndClaims(Use* use, cachecore::Duration now);
  bool MayHaveChanged() REQUIRES(mu_);
  void SweepLocked() REQUIRES(mu_);
  cachecore::Status Save(const Uses& uses) const;
  void Load() REQUIRES(mu_);

  const std::string path_;
  const cachecore::Clock& clock_;
  const std::function<void(const GrantName&)> on_end_;
  const std::function<bool(const GrantName&)> close_;
  const cachecore::UniqueFd table_;  // The mount table, which says when it has changed.
  cachecore::Mutex mu_;              // Before that of grants and that of the engine.
  Uses uses_ GUARDED_BY(mu_);
  std::set<GrantName> closing_ GUARDED_BY(mu_);
  cachecore::Duration swept_ GUARDED_BY(mu_){0};
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_MOUNTED_OBJECTS_H_
