// SnapshotStore: the snapshots, and what containerd does with them.
//
// Model    what an overlay snapshotter does, and one thing more: a Prepare for a layer of a
//          Holdfast image (layer_labels.h) ends with a committed snapshot whose files are the
//          mounted image, and with EEXIST, by which containerd knows that it need not bring the
//          layer.  All clients share one snapshot for a reference and a parent.
// Errors   ENOENT: no such snapshot or parent.  EEXIST: the key is in use, or see above.  EINVAL: a
//          request that can't be meant.  EBUSY: not in the state for it (children, not active, not
//          committed).  EPERM: a layer that claims another identity.  Else what the disk or
//          `holdfast` said.
// Threads  thread-safe.  mu_ is held over the writing of one small record, never over a mount, a
//          walk or the removal of a tree.
// Owns     nothing that is mounted: see ImageMounter.
// Crash    see SnapshotDirectory.  Mounts that a reboot took are made again when they are needed.

#ifndef SNAPSHOTTER_SNAPSHOT_STORE_H_
#define SNAPSHOTTER_SNAPSHOT_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "snapshotter/filter.h"
#include "snapshotter/image_mounter.h"
#include "snapshotter/snapshot_directory.h"
#include "snapshotter/snapshot_record.h"

namespace snapshotter {

// One mount(2) for the runtime of the container.
struct MountSpec {
  std::string type;
  std::string source;
  std::vector<std::string> options;
};

class SnapshotStore {
 public:
  // Reads what is there and removes orphans.  `mounter` outlives the store.
  static cachecore::Result<std::unique_ptr<SnapshotStore>> Open(const std::string& root,
                                                                ImageMounter* mounter);

  // An active snapshot, or a view, over `parent` ("" for none).
  cachecore::Result<std::vector<MountSpec>> Prepare(const std::string& key,
                                                    const std::string& parent,
                                                    const Labels& labels);
  cachecore::Result<std::vector<MountSpec>> View(const std::string& key, const std::string& parent,
                                                 const Labels& labels);
  cachecore::Result<std::vector<MountSpec>> Mounts(const std::string& key);
  // `parent`: of a snapshot that was prepared without one; "" leaves it as it is.
  cachecore::Status Commit(const std::string& name, const std::string& key, const Labels& labels,
                           const std::string& parent = "");
  cachecore::Status Remove(const std::string& key);
  cachecore::Result<SnapshotRecord> Stat(const std::string& key);
  // `paths`: "labels", "labels.NAME"; none is "labels".  An empty value removes the label.
  cachecore::Result<SnapshotRecord> Update(const std::string& key, const Labels& labels,
                                           const std::vector<std::string>& paths);
  cachecore::Result<DiskUsage> Usage(const std::string& key);
  std::vector<SnapshotRecord> List(const Filter& filter);
  // Removes what Remove and deaths have left.
  cachecore::Status Cleanup();

 private:
  using Records = std::map<std::string, SnapshotRecord>;

  SnapshotStore(std::unique_ptr<SnapshotDirectory> directory, ImageMounter* mounter)
      : directory_(std::move(directory)), mounter_(mounter) {}
  cachecore::Status TakeUp();

  cachecore::Result<std::vector<MountSpec>> Create(Kind kind, const std::string& key,
                                                   const std::string& parent, const Labels& labels);
  // EEXIST when the layer is there.
  cachecore::Status CreateImage(const std::string& key, const std::string& parent,
                                const Labels& labels, const ImageLayer& image);
  cachecore::Status CreateNothing(const std::string& key, const std::string& parent,
                                  const Labels& labels);
  cachecore::Status MountAndAdd(const SnapshotRecord& record);
  // Nothing is known of the record's directory yet, or it is an orphan.
  cachecore::Status RemoveDirectory(uint64_t id, bool is_image);

  cachecore::Result<const SnapshotRecord*> Find(const std::string& key) const REQUIRES(mu_);
  cachecore::Status CheckNew(const std::string& key, const std::string& parent) const REQUIRES(mu_);
  bool HasChildren(const std::string& name) const REQUIRES(mu_);
  const SnapshotRecord* FindRemote(const std::string& reference, const std::string& parent) const
      REQUIRES(mu_);
  cachecore::Status Add(SnapshotRecord record) REQUIRES(mu_);
  static Labels WithoutEmpty(Labels labels);
  SnapshotRecord NewRecord(const std::string& key, const std::string& parent, const Labels& labels)
      REQUIRES(mu_);

  // The record itself when committed, then its ancestors, nearest first.
  cachecore::Result<std::vector<SnapshotRecord>> Lineage(const std::string& name) EXCLUDES(mu_);
  cachecore::Status EnsureMounted(const std::vector<SnapshotRecord>& lineage) EXCLUDES(mu_);
  std::vector<MountSpec> MountsOf(const SnapshotRecord& record,
                                  const std::vector<SnapshotRecord>& lineage) const;
  // One at a time for each name.
  void Claim(const std::string& what) REQUIRES(mu_);
  void Unclaim(const std::string& what) REQUIRES(mu_);

  const std::unique_ptr<SnapshotDirectory> directory_;
  ImageMounter* const mounter_;

  cachecore::Mutex mu_;
  cachecore::CondVar unclaimed_;
  Records records_ GUARDED_BY(mu_);
  std::set<std::string> claims_ GUARDED_BY(mu_);
  std::set<uint64_t> unfinished_ GUARDED_BY(mu_);  // Directories that are no orphans yet.
  uint64_t next_id_ GUARDED_BY(mu_) = 1;
};

}  // namespace snapshotter

#endif  // SNAPSHOTTER_SNAPSHOT_STORE_H_
