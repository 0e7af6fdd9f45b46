#include "snapshotter/snapshot_store.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <set>

#include "snapshotter/layer_labels.h"

namespace snapshotter {
namespace {

using cachecore::MutexLock;
using cachecore::Result;
using cachecore::Status;

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Status NotThere(const std::string& key) {
  return Status(ENOENT, "snapshot " + key + " does not exist");
}

Status AlreadyThere(const std::string& key) {
  return Status(EEXIST, "snapshot " + key + " exists");
}

// containerd ends its search for the layer here.
Status LayerIsThere(const std::string& reference) {
  return Status(EEXIST, "layer " + reference + " is there");
}

// containerd believes what an image says of its layers' identity; what is mounted is held to it by
// the digest, so that no image can replace a layer of another one.
Status CheckIdentity(const ImageLayer& image, const std::string& reference,
                     const std::string& parent) {
  if (!parent.empty()) {
    return Status(EINVAL, "layer " + image.blob + " is a Holdfast image over another layer, " +
                              parent + "; there it must be the lowest");
  }
  if (reference == ChainId("", image.verity)) return {};
  return Status(EPERM, "layer " + image.blob + " claims the diff id " + reference +
                           " and has the fs-verity digest " + image.verity +
                           "; they must be the same: build the image again (holdfast image build)");
}

}  // namespace

Result<std::unique_ptr<SnapshotStore>> SnapshotStore::Open(const std::string& root,
                                                           ImageMounter* mounter) {
  ASSIGN_OR_RETURN(std::unique_ptr<SnapshotDirectory> directory, SnapshotDirectory::Open(root));
  std::unique_ptr<SnapshotStore> store(new SnapshotStore(std::move(directory), mounter));
  RETURN_IF_ERROR(store->TakeUp());
  const Status status = store->Cleanup();
  if (!status.ok()) LOG(WARNING) << "left for later: " << status.message();
  return store;
}

Status SnapshotStore::TakeUp() {
  ASSIGN_OR_RETURN(SnapshotDirectory::Contents contents, directory_->Read());
  const MutexLock lock(&mu_);
  const auto see = [this](uint64_t id) REQUIRES(mu_) { next_id_ = std::max(next_id_, id + 1); };
  for (const uint64_t id : contents.orphans) see(id);
  for (const uint64_t id : contents.damaged) see(id);
  for (SnapshotRecord& record : contents.records) {
    see(record.id);
    const std::string name = record.name;
    if (!records_.emplace(name, std::move(record)).second) {
      return Status(EBADMSG, "two snapshots are named " + name + "; remove the directory of one");
    }
  }
  LOG(INFO) << records_.size() << " snapshots, " << contents.orphans.size() << " orphans";
  return {};
}

Result<const SnapshotRecord*> SnapshotStore::Find(const std::string& key) const {
  const auto found = records_.find(key);
  if (found == records_.end()) return NotThere(key);
  return &found->second;
}

Status SnapshotStore::CheckNew(const std::string& key, const std::string& parent) const {
  if (key.empty()) return Status(EINVAL, "a snapshot needs a name");
  if (records_.contains(key)) return AlreadyThere(key);
  if (parent.empty()) return {};
  ASSIGN_OR_RETURN(const SnapshotRecord* const below, Find(parent));
  if (below->kind == Kind::kCommitted) return {};
  return Status(EINVAL, "snapshot " + parent + " is not committed, so it can't be a parent");
}

bool SnapshotStore::HasChildren(const std::string& name) const {
  return std::any_of(records_.begin(), records_.end(),
                     [&](const auto& entry) { return entry.second.parent == name; });
}

const SnapshotRecord* SnapshotStore::FindRemote(const std::string& reference,
                                                const std::string& parent) const {
  for (const auto& [name, record] : records_) {
    if (record.kind == Kind::kCommitted && record.reference == reference &&
        record.parent == parent) {
      return &record;
    }
  }
  return nullptr;
}

// containerd keeps no label without a value.
Labels SnapshotStore::WithoutEmpty(Labels labels) {
  std::erase_if(labels, [](const auto& label) { return label.second.empty(); });
  return labels;
}

SnapshotRecord SnapshotStore::NewRecord(const std::string& key, const std::string& parent,
                                        const Labels& labels) {
  SnapshotRecord record;
  record.id = next_id_++;
  record.name = key;
  record.parent = parent;
  record.labels = WithoutEmpty(labels);
  record.created_ns = record.updated_ns = Now();
  return record;
}

Status SnapshotStore::Add(SnapshotRecord record) {
  RETURN_IF_ERROR(directory_->WriteRecord(record));
  const std::string name = record.name;
  records_.emplace(name, std::move(record));
  return {};
}

void SnapshotStore::Claim(const std::string& what) {
  while (claims_.contains(what)) unclaimed_.Wait(&mu_);
  claims_.insert(what);
}

void SnapshotStore::Unclaim(const std::string& what) {
  claims_.erase(what);
  unclaimed_.NotifyAll();
}

Result<std::vector<SnapshotRecord>> SnapshotStore::Lineage(const std::string& name) {
  const MutexLock lock(&mu_);
  std::vector<SnapshotRecord> lineage;
  std::set<std::string> seen;
  for (std::string next = name; !next.empty(); next = lineage.back().parent) {
    if (!seen.insert(next).second)
      return Status(EBADMSG, "snapshot " + next + " is its own ancestor");
    ASSIGN_OR_RETURN(const SnapshotRecord* const record, Find(next));
    lineage.push_back(*record);
  }
  return lineage;
}

Status SnapshotStore::EnsureMounted(const std::vector<SnapshotRecord>& lineage) {
  for (const SnapshotRecord& record : lineage) {
    if (record.content != Content::kImage) continue;
    const std::string path = directory_->FsPath(record.id);
    ASSIGN_OR_RETURN(bool is_mounted, mounter_->IsMounted(path));
    if (is_mounted) continue;
    {
      const MutexLock lock(&mu_);
      Claim(path);
    }
    Status status;
    const Result<bool> meanwhile = mounter_->IsMounted(path);
    if (!meanwhile.ok()) {
      status = meanwhile.status();
    } else if (!*meanwhile) {
      LOG(INFO) << "mounting " << record.image.blob << " again";
      status = mounter_->Mount(record.image, path);
    }
    const MutexLock lock(&mu_);
    Unclaim(path);
    if (!status.ok()) return std::move(status).WithContext("layer " + record.image.blob);
  }
  return {};
}

Status SnapshotStore::RemoveDirectory(uint64_t id, bool is_image) {
  Status status;
  const std::string path = directory_->FsPath(id);
  const Result<bool> is_mounted = is_image ? mounter_->IsMounted(path) : Result<bool>(false);
  if (!is_mounted.ok() || *is_mounted) status = mounter_->Unmount(path);
  if (!status.ok()) return status;
  status = directory_->Remove(id);
  if (!is_image || status.error() != EBUSY) return status;
  RETURN_IF_ERROR(mounter_->Unmount(path));  // It is mounted all the same, and dead.
  return directory_->Remove(id);
}

Result<std::vector<MountSpec>> SnapshotStore::Prepare(const std::string& key,
                                                      const std::string& parent,
                                                      const Labels& labels) {
  ASSIGN_OR_RETURN(const std::optional<ImageLayer> image, ImageLayerOf(labels));
  if (image) return CreateImage(key, parent, labels, *image);
  const std::string& reference = LabelOf(labels, kReferenceLabel);
  bool adds_nothing = false;
  if (!reference.empty() && !parent.empty()) {
    ASSIGN_OR_RETURN(const SnapshotRecord below, Stat(parent));
    adds_nothing = IsMerkleLayer(below, reference);
  }
  if (adds_nothing) return CreateNothing(key, parent, labels);
  return Create(Kind::kActive, key, parent, labels);
}

Result<std::vector<MountSpec>> SnapshotStore::View(const std::string& key,
                                                   const std::string& parent,
                                                   const Labels& labels) {
  return Create(Kind::kView, key, parent, labels);
}

Result<std::vector<MountSpec>> SnapshotStore::Create(Kind kind, const std::string& key,
                                                     const std::string& parent,
                                                     const Labels& labels) {
  ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> lineage, Lineage(parent));
  RETURN_IF_ERROR(EnsureMounted(lineage));
  const MutexLock lock(&mu_);
  RETURN_IF_ERROR(CheckNew(key, parent));
  SnapshotRecord record = NewRecord(key, parent, labels);
  record.kind = kind;
  RETURN_IF_ERROR(directory_->Create(record.id, kind == Kind::kActive));
  const auto below = std::find_if(lineage.begin(), lineage.end(), [](const SnapshotRecord& layer) {
    return layer.content != Content::kNothing;
  });
  Status status;
  if (below != lineage.end()) {
    status = directory_->CopyOwner(record.id, directory_->FsPath(below->id));
  }
  if (status.ok()) status = Add(record);
  if (!status.ok()) {
    directory_->Remove(record.id).IgnoreError("the error that led here is the one to tell");
    return status;
  }
  return MountsOf(record, lineage);
}

Status SnapshotStore::CreateNothing(const std::string& key, const std::string& parent,
                                    const Labels& labels) {
  const MutexLock lock(&mu_);
  RETURN_IF_ERROR(CheckNew(key, parent));
  const std::string& reference = LabelOf(labels, kReferenceLabel);
  if (FindRemote(reference, parent) != nullptr) return LayerIsThere(reference);
  SnapshotRecord record = NewRecord(key, parent, labels);
  record.kind = Kind::kCommitted;
  record.content = Content::kNothing;
  record.reference = reference;
  RETURN_IF_ERROR(directory_->Create(record.id, false));
  RETURN_IF_ERROR(Add(record));
  return LayerIsThere(reference);
}

Status SnapshotStore::CreateImage(const std::string& key, const std::string& parent,
                                  const Labels& labels, const ImageLayer& image) {
  const std::string& reference = LabelOf(labels, kReferenceLabel);
  RETURN_IF_ERROR(CheckIdentity(image, reference, parent));
  const std::string claim = reference + " " + parent;
  SnapshotRecord record;
  bool is_there = false;
  {
    const MutexLock lock(&mu_);
    Claim(claim);
    const Status status = CheckNew(key, parent);
    if (!status.ok()) {
      Unclaim(claim);
      return status;
    }
    const SnapshotRecord* const twin = FindRemote(reference, parent);
    is_there = twin != nullptr;
    record = is_there ? *twin : NewRecord(key, parent, labels);
    if (!is_there) {
      record.kind = Kind::kCommitted;
      record.content = Content::kImage;
      record.reference = reference;
      record.image = image;
      unfinished_.insert(record.id);
    }
  }
  const Status status = is_there ? EnsureMounted({record}) : MountAndAdd(record);
  const MutexLock lock(&mu_);
  unfinished_.erase(record.id);
  Unclaim(claim);
  return status.ok() ? LayerIsThere(reference) : status;
}

Status SnapshotStore::MountAndAdd(const SnapshotRecord& record) {
  RETURN_IF_ERROR(directory_->Create(record.id, false));
  Status status = mounter_->Mount(record.image, directory_->FsPath(record.id));
  if (status.ok()) {
    const MutexLock lock(&mu_);
    status = CheckNew(record.name, record.parent);  // The parent may have been removed meanwhile.
    if (status.ok()) status = Add(record);
  }
  if (status.ok()) return status;
  const Status discarded = RemoveDirectory(record.id, /*is_image=*/true);
  if (!discarded.ok()) LOG(WARNING) << "left for later: " << discarded.message();
  return std::move(status).WithContext("layer " + record.image.blob);
}

Result<std::vector<MountSpec>> SnapshotStore::Mounts(const std::string& key) {
  ASSIGN_OR_RETURN(const SnapshotRecord record, Stat(key));
  if (record.kind == Kind::kCommitted) {
    return Status(EBUSY,
                  "snapshot " + key + " is committed; only active ones and views have mounts");
  }
  ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> lineage, Lineage(record.parent));
  RETURN_IF_ERROR(EnsureMounted(lineage));
  return MountsOf(record, lineage);
}

Status SnapshotStore::Commit(const std::string& name, const std::string& key, const Labels& labels,
                             const std::string& parent) {
  ASSIGN_OR_RETURN(const SnapshotRecord before, Stat(key));
  if (before.kind != Kind::kActive) return Status(EBUSY, "snapshot " + key + " is not active");
  ASSIGN_OR_RETURN(const DiskUsage usage, directory_->Measure(before.id));
  RETURN_IF_ERROR(directory_->SyncFiles(before.id));  // Before its record, and without the lock.
  const MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const SnapshotRecord* const found, Find(key));
  if (found->id != before.id) return NotThere(key);
  // containerd unpacks layers beside each other without a parent, and says it here.
  if (!parent.empty() && !found->parent.empty() && parent != found->parent) {
    return Status(EINVAL,
                  "snapshot " + key + " has the parent " + found->parent + ", not " + parent);
  }
  SnapshotRecord record = *found;
  if (!parent.empty()) record.parent = parent;
  RETURN_IF_ERROR(CheckNew(name, record.parent));
  record.name = name;
  record.kind = Kind::kCommitted;
  record.labels = WithoutEmpty(labels);
  record.usage = usage;
  record.created_ns = record.updated_ns = Now();
  RETURN_IF_ERROR(Add(record));
  records_.erase(key);
  return {};
}

Status SnapshotStore::Remove(const std::string& key) {
  SnapshotRecord record;
  {
    const MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const SnapshotRecord* const found, Find(key));
    if (HasChildren(key))
      return Status(EBUSY, "cannot remove snapshot " + key + ": it has children");
    record = *found;
    RETURN_IF_ERROR(directory_->EraseRecord(record.id));
    records_.erase(key);
    unfinished_.insert(record.id);
  }
  const Status status = RemoveDirectory(record.id, record.content == Content::kImage);
  if (!status.ok()) LOG(WARNING) << "left for later: " << status.message();
  const MutexLock lock(&mu_);
  unfinished_.erase(record.id);
  return {};
}

Result<SnapshotRecord> SnapshotStore::Stat(const std::string& key) {
  const MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const SnapshotRecord* const record, Find(key));
  return *record;
}

Result<SnapshotRecord> SnapshotStore::Update(const std::string& key, const Labels& labels,
                                             const std::vector<std::string>& paths) {
  constexpr std::string_view kOne = "labels.";
  const MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const SnapshotRecord* const found, Find(key));
  SnapshotRecord record = *found;
  if (paths.empty()) record.labels = labels;
  for (const std::string& path : paths) {
    if (path == "labels") {
      record.labels = labels;
    } else if (path.starts_with(kOne)) {
      const std::string name = path.substr(kOne.size());
      if (name.empty()) return Status(EINVAL, "a label without a name can't be changed");
      record.labels[name] = LabelOf(labels, name.c_str());
    } else {
      return Status(EINVAL, "\"" + path + "\" of a snapshot can't be changed; labels can");
    }
  }
  record.labels = WithoutEmpty(std::move(record.labels));
  record.updated_ns = Now();
  RETURN_IF_ERROR(directory_->WriteRecord(record));
  records_[key] = record;
  return record;
}

Result<DiskUsage> SnapshotStore::Usage(const std::string& key) {
  ASSIGN_OR_RETURN(const SnapshotRecord record, Stat(key));
  // What of an image is on the disk lies in the cache of the Holdfast instance.
  if (record.kind == Kind::kCommitted) return record.usage;
  if (record.kind == Kind::kView) return DiskUsage{};
  return directory_->Measure(record.id);
}

std::vector<SnapshotRecord> SnapshotStore::List(const Filter& filter) {
  std::vector<SnapshotRecord> found;
  const MutexLock lock(&mu_);
  for (const auto& [name, record] : records_) {
    if (filter.Matches(record)) found.push_back(record);
  }
  return found;
}

Status SnapshotStore::Cleanup() {
  // Without the lock: with many snapshots it takes long.  What was made meanwhile looks like an
  // orphan there, and is told from one by what is known under the lock.
  ASSIGN_OR_RETURN(const SnapshotDirectory::Contents contents, directory_->Read());
  std::vector<uint64_t> orphans;
  {
    const MutexLock lock(&mu_);
    std::set<uint64_t> known;
    for (const auto& [name, record] : records_) known.insert(record.id);
    for (const uint64_t id : contents.orphans) {
      if (!known.contains(id) && unfinished_.insert(id).second) orphans.push_back(id);
    }
  }
  Status first;
  for (const uint64_t id : orphans) {
    Status status = RemoveDirectory(id, /*is_image=*/true);
    if (first.ok()) first = std::move(status);
  }
  const MutexLock lock(&mu_);
  for (const uint64_t id : orphans) unfinished_.erase(id);
  return first;
}

}  // namespace snapshotter
