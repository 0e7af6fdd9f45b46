// How a snapshot is mounted: a part of SnapshotStore.

#include <unistd.h>

#include "snapshotter/snapshot_store.h"

namespace snapshotter {
namespace {

// The kernel's index of hard links is on in some kernels, and then a lower layer may not be used by
// two overlays that differ.
bool KernelHasIndex() { return access("/sys/module/overlay/parameters/index", F_OK) == 0; }

// The kernel splits options at commas and lower directories at colons, unless a backslash is before
// them.
std::string Escaped(const std::string& path) {
  std::string escaped;
  for (const char c : path) {
    if (c == ',' || c == ':' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

MountSpec Bind(const std::string& source, bool writable) {
  return {"bind", source, {writable ? "rw" : "ro", "rbind"}};
}

}  // namespace

std::vector<MountSpec> SnapshotStore::MountsOf(const SnapshotRecord& record,
                                               const std::vector<SnapshotRecord>& lineage) const {
  std::vector<std::string> lower;
  for (const SnapshotRecord& layer : lineage) {
    if (layer.content != Content::kNothing) lower.push_back(directory_->FsPath(layer.id));
  }
  const bool writable = record.kind == Kind::kActive;
  // An overlay needs two directories at least.
  if (lower.empty()) return {Bind(directory_->FsPath(record.id), writable)};
  if (lower.size() == 1 && !writable) return {Bind(lower[0], false)};
  MountSpec overlay{"overlay", "overlay", {}};
  if (KernelHasIndex()) overlay.options.push_back("index=off");
  if (writable) {
    overlay.options.push_back("workdir=" + Escaped(directory_->WorkPath(record.id)));
    overlay.options.push_back("upperdir=" + Escaped(directory_->FsPath(record.id)));
  }
  std::string list = "lowerdir=" + Escaped(lower[0]);
  for (size_t i = 1; i < lower.size(); ++i) list += ":" + Escaped(lower[i]);
  overlay.options.push_back(list);
  return {overlay};
}

}  // namespace snapshotter
