// CacheDirectory: the directory that a client of the device has bound: its space, and the names of
// objects' files in it.
//
// Model    an object's file has a name below the directory from the time that its use ends, as in
//          the kernel: a hard link to the object's data file, or, where that is on another file
//          system, an empty file of its size.  Both files carry the object's number as an extended
//          attribute.  A data file that carries it although the name is gone is one whose backing
//          file was deleted: the object is dropped when it is acquired next.
// Units    limits in percent of inodes and of blocks.
// Errors   0, or a negative errno of the kernel for the same case.  A name that cannot be made is
//          logged, and is tried again when the object's use ends again.
// Threads  thread-safe.
// Owns     the directory's descriptor, and a lock on the directory.
// Cost     Bind and Unbind look at each object that is known: some 0.1 s for 10,000.
// Crash    a name is made before its attribute, and both again by the next bind.
// See      docs/cachefiles-compat.md; fusefs/cachefiles/backing_name.h.

#ifndef FUSEFS_CACHEFILES_CACHE_DIRECTORY_H_
#define FUSEFS_CACHEFILES_CACHE_DIRECTORY_H_

#include <sys/statvfs.h>
#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/cache.h"
#include "fusefs/cachefiles/command_state.h"
#include "fusefs/server/grants.h"

namespace fusefs {

class CacheDirectory {
 public:
  // `on_culling`: culling has become wanted, or unwanted.
  CacheDirectory(cachecore::Cache* cache, std::function<void()> on_culling)
      : cache_(cache), on_culling_(std::move(on_culling)) {}

  // Which objects are used.  Until it is known, each one may be.  `sweep`: releases the grants of
  // what was unmounted.
  void SetGrants(const Grants* grants, std::function<void()> sweep = nullptr) {
    sweep_ = std::move(sweep);
    grants_ = grants;
  }

  // Checks the directory, locks it and makes what the kernel makes in it.
  int Bind(cachecore::UniqueFd directory, const CullLimits& files, const CullLimits& blocks)
      EXCLUDES(mu_);
  // The same of the directory that the last daemon had bound, in which objects may be used.
  void Resume(cachecore::UniqueFd directory, const CullLimits& files, const CullLimits& blocks)
      EXCLUDES(mu_);
  // Gives each object's file its name first.
  void Unbind() EXCLUDES(mu_);

  // -ENOBUFS: less is free than the limit at which nothing more is stored.
  int CheckSpace() EXCLUDES(mu_);
  bool is_culling() const { return is_culling_; }
  bool IsOnItsFileSystem(dev_t device) EXCLUDES(mu_);
  // Since the last status line.
  bool has_changed() const { return has_changed_; }
  // What a device that is bound without `ondemand` reads.
  std::string StatusLine() EXCLUDES(mu_);

  // The object's use has ended.
  void Commit(const GrantName& name) EXCLUDES(change_mu_, mu_);
  // Before the object is acquired: drops what was deleted from the directory.  ENOBUFS: there is no
  // room for it.  Where it is OK the object counts as used until Admitted.
  cachecore::Status Admit(const GrantName& name) EXCLUDES(change_mu_, mu_);
  // It is acquired, and its grant says that it is used; or it is not.
  void Admitted(const GrantName& name) EXCLUDES(mu_);
  // Whether a mount uses an object, or a program that has acquired one on the control socket.
  bool IsAnyUsed();
  // A name in a directory that is open as `here`: -ENOENT, -EBUSY, -EIO.
  int InUse(int here, const std::string& name) EXCLUDES(change_mu_, mu_);
  // The same; removes it.
  int Cull(int here, const std::string& name) EXCLUDES(change_mu_, mu_);

 private:
  struct Limits {
    uint64_t run = 0;
    uint64_t cull = 0;
    uint64_t stop = 0;
  };
  struct Bound {
    cachecore::UniqueFd directory;
    Limits files;
    Limits blocks;
  };
  using BoundPtr = std::shared_ptr<const Bound>;
  // What a name is of, opened once for all that is asked of it.
  struct Named {
    cachecore::UniqueFd file;
    bool is_directory = false;
    cachecore::ObjectNumber number;  // 0: of no object.
  };

  static int LookUp(int here, const std::string& name, Named* found);
  static bool IsStill(int here, const std::string& name, const Named& found);
  // Moves a directory to the graveyard.
  bool Bury(const Bound& bound, int here, const std::string& name) REQUIRES(change_mu_);
  // LookUp, and -EBUSY for what is used.
  int LookUpUnused(const Bound& bound, int here, const std::string& name, Named* found)
      EXCLUDES(mu_) REQUIRES(change_mu_);
  cachecore::Status DropDeleted(const GrantName& name) EXCLUDES(mu_);

  static Limits PartsOf(uint64_t all, const CullLimits& percent);
  static BoundPtr Measured(cachecore::UniqueFd directory, const struct statvfs& info,
                           const CullLimits& files, const CullLimits& blocks);
  BoundPtr bound() EXCLUDES(mu_);
  void NoteCulling(bool is_wanted);
  void CommitAll(const Bound& bound) EXCLUDES(change_mu_);
  // Whether it had its name already; *blocks: of its file.
  bool CommitTo(const Bound& bound, const GrantName& object, cachecore::ObjectNumber number,
                uint64_t* blocks) REQUIRES(change_mu_);
  void DropIfDeleted(const Bound& bound, const GrantName& name, cachecore::ObjectNumber number)
      REQUIRES(change_mu_);
  // Also true where that cannot be known.
  static bool HasName(const Bound& bound, const GrantName& name, cachecore::ObjectNumber number);
  bool IsUsed(cachecore::ObjectNumber number) EXCLUDES(mu_);
  bool IsDirectoryUsed(const Bound& bound, int here, const std::string& name) EXCLUDES(mu_);

  cachecore::Cache* const cache_;
  const std::function<void()> on_culling_;
  std::function<void()> sweep_;  // Set before `grants_` is.
  std::atomic<const Grants*> grants_ = nullptr;
  std::atomic<bool> is_culling_ = false;
  std::atomic<bool> has_changed_ = false;
  std::atomic<unsigned> buried_ = 0;  // In the graveyard, by this life.
  // Of files with names that could be culled, since the last status line.
  std::atomic<unsigned> released_ = 0;
  std::atomic<uint64_t> released_blocks_ = 0;
  cachecore::Mutex change_mu_;  // Held from the look at what is used until it is changed.
  cachecore::Mutex mu_;
  std::multiset<GrantName> admitted_ GUARDED_BY(mu_);
  BoundPtr bound_ GUARDED_BY(mu_);
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_CACHE_DIRECTORY_H_
