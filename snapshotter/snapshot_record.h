// SnapshotRecord: what is remembered of one snapshot, and its text on disk.
//
// Model    a tree by names: `parent` names a committed snapshot or is empty.  `content` says what
//          fs/ in the snapshot's directory is: files of its own, the mount point of an image, or
//          nothing that counts (a layer that adds nothing).
// Errors   DecodeRecord: EBADMSG for a text that is no record.
// Threads  values.
// Crash    one record is one file; unknown fields are refused, since a newer program wrote them.
// See      docs/containers.md "containerd".

#ifndef SNAPSHOTTER_SNAPSHOT_RECORD_H_
#define SNAPSHOTTER_SNAPSHOT_RECORD_H_

#include <cstdint>
#include <map>
#include <string>

#include "cachecore/base/status.h"

namespace snapshotter {

using Labels = std::map<std::string, std::string>;

enum class Kind { kView, kActive, kCommitted };
enum class Content { kFiles, kImage, kNothing };

struct DiskUsage {
  int64_t bytes = 0;
  int64_t inodes = 0;
};

// Where the image of a layer comes from, and what it must be.
struct ImageLayer {
  std::string registry;    // "registry.example:5000".
  std::string repository;  // "os/debian".
  std::string blob;        // "sha256:HEX" of the EROFS image.
  std::string verity;      // "sha256:HEX", its fs-verity digest.
  std::string merkle;      // "sha256:HEX" of the blob that holds its Merkle tree.
};

struct SnapshotRecord {
  uint64_t id = 0;  // Names the directory; never changes.
  std::string name;
  std::string parent;
  Kind kind = Kind::kActive;
  Content content = Content::kFiles;
  Labels labels;
  int64_t created_ns = 0;  // Since 1970.
  int64_t updated_ns = 0;
  DiskUsage usage;        // Of a committed one with files.
  std::string reference;  // The reference it was prepared for (its chain id), of a remote one.
  ImageLayer image;       // Of Content::kImage.
};

// "view", "active", "committed": as filters write them.
const char* KindName(Kind kind);

std::string EncodeRecord(const SnapshotRecord& record);
cachecore::Result<SnapshotRecord> DecodeRecord(const std::string& text);

}  // namespace snapshotter

#endif  // SNAPSHOTTER_SNAPSHOT_RECORD_H_
