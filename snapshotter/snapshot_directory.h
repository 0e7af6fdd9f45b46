// SnapshotDirectory: the snapshots' files and records on disk.
//
// Model    ROOT/snapshots/ID/ belongs to one snapshot: `record`, `fs` (its files, or the mount
//          point of its image) and, of an active one, `work`.  A directory without a record is an
//          orphan: a snapshot that was never finished, or is no more.
// Errors   every Status names the path.
// Threads  thread-safe for different ids; calls for one id come one after the other.
// Owns     a lock on ROOT, so that two snapshotters never share it.
// Crash    the record is written last and erased first, each in one rename(2) or unlink(2) that is
//          synced: after SIGKILL and after a power cut a snapshot is there as a whole or not at
//          all.  This is why the records are files and in no database: there is nothing that could
//          disagree with the directories.

#ifndef SNAPSHOTTER_SNAPSHOT_DIRECTORY_H_
#define SNAPSHOTTER_SNAPSHOT_DIRECTORY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "snapshotter/snapshot_record.h"

namespace snapshotter {

class SnapshotDirectory {
 public:
  struct Contents {
    std::vector<SnapshotRecord> records;
    std::vector<uint64_t> orphans;
    std::vector<uint64_t> damaged;  // Their record says nothing; kept for people to look at.
  };

  // Makes `root` if need be.  EBUSY: another snapshotter has it.  EINVAL: a path that can't stand
  // in the options of an overlay.
  static cachecore::Result<std::unique_ptr<SnapshotDirectory>> Open(const std::string& root);

  // Everything that is there, and logs what is damaged.
  cachecore::Result<Contents> Read() const;

  std::string FsPath(uint64_t id) const { return PathOf(id) + "/fs"; }
  std::string WorkPath(uint64_t id) const { return PathOf(id) + "/work"; }

  // The directory of a snapshot to come: an orphan until its record is written.
  cachecore::Status Create(uint64_t id, bool with_work) const;
  // Gives fs/ the owner and mode of `model`, the top directory of what lies below it.
  cachecore::Status CopyOwner(uint64_t id, const std::string& model) const;
  // Makes what is in fs/ survive a power cut, as a record that calls it committed says.
  cachecore::Status SyncFiles(uint64_t id) const;
  cachecore::Status WriteRecord(const SnapshotRecord& record) const;
  // From now on the directory is an orphan.
  cachecore::Status EraseRecord(uint64_t id) const;
  // Removes an orphan.  EBUSY: something is mounted in it.
  cachecore::Status Remove(uint64_t id) const;

  // What fs/ takes on the disk.
  cachecore::Result<DiskUsage> Measure(uint64_t id) const;

 private:
  SnapshotDirectory(std::string snapshots, cachecore::UniqueFd lock)
      : snapshots_(std::move(snapshots)), lock_(std::move(lock)) {}
  std::string PathOf(uint64_t id) const { return snapshots_ + "/" + std::to_string(id); }

  const std::string snapshots_;  // Real path of ROOT/snapshots.
  const cachecore::UniqueFd lock_;
};

}  // namespace snapshotter

#endif  // SNAPSHOTTER_SNAPSHOT_DIRECTORY_H_
