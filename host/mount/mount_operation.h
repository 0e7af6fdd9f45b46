// MountOperation: the steps of `holdfast mount`, each undone should a later one fail.
//
// Model    claim the mount point, start the instance, tell the fetcher where the object comes from,
//          acquire it, look at its first bytes, mount it, keep the record.  Of an image of several
//          layers each is mounted by an operation of its own, and then an overlay of them.
// Errors   one line that names the mount point or the URL and, where there is one, the cure.
// Threads  one thread only.
// Crash    killed half-way it leaves a claim, which the next mount there takes over, and perhaps a
//          running instance without mounts, which `holdfast stop` ends.

#ifndef HOST_MOUNT_MOUNT_OPERATION_H_
#define HOST_MOUNT_MOUNT_OPERATION_H_

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/content/image_content.h"
#include "host/images/image_source.h"
#include "host/instance/instance.h"
#include "host/instance/settings.h"
#include "host/mount/image_mount.h"
#include "host/mount/image_mount_options.h"
#include "host/mounts/mount_point.h"
#include "host/mounts/mount_record.h"
#include "host/mounts/saved_mount.h"

namespace host {

struct MountRequest {
  // An EROFS image of an image that has several.
  struct Layer {
    ImageSource source;
    uint64_t bytes = 0;
    std::string reference;  // "": it is called by its URL.
  };

  Instance instance;
  ImageSource source;
  std::string mount_point;  // As given.
  ContentChoice content;
  ImageMountOptions options;
  std::chrono::milliseconds timeout;  // For all of it.
  Settings settings;
  // What the user called the image, when that is not the source's URL, and the digest of the
  // manifest to which that led.
  std::string reference = "";
  std::string manifest_digest = "";
  uint64_t image_bytes = 0;  // As the manifest says; 0: whatever the origin has.
  bool quiet = false;        // Says nothing while it waits.
  bool renew = false;        // May replace the source of a mount that lives.
  // With --persist what is recorded of it, but for what is known once it is mounted.
  std::optional<SavedMount> save = std::nullopt;
  bool restores = false;  // Of a record of --persist: without it nothing is mounted.
  std::optional<cachecore::Deadline> deadline =
      std::nullopt;  // Where `timeout` has begun to run before.
  // Of an image of several, the lowest first; `source` is that of one of them.
  std::vector<Layer> layers = {};
};

class MountOperation {
 public:
  explicit MountOperation(MountRequest request)
      : request_(std::move(request)),
        deadline_(request_.deadline.value_or(cachecore::Deadline(request_.timeout))) {}
  // Returns once the mount is usable, or with everything undone.
  cachecore::Status Run();

 private:
  cachecore::Status Attempt();
  // Why it waits.
  std::string Cause() const;
  cachecore::Status ClaimAndStart();
  // Says so when keys that were meant for a new instance meet one that runs.
  void WarnOfUnusedEnvironment() const;
  cachecore::Status Claim();
  // Whether a dead mount was there.
  bool ClearMountPoint(const std::vector<cachecore::MountEntry>& table) const;
  std::string SourceText() const;
  std::set<std::string> OthersOfSource() const;
  // One of them that is alive, or "".
  std::string AnyOtherOfSource() const;
  cachecore::Status WriteSource();
  // Whether the source file is to be written although it may be another mount's.
  cachecore::Result<bool> MayReplace(const std::string& before) const;
  void UndoSource() const;
  cachecore::Status Acquire();
  cachecore::Result<nlohmann::json> AskForObject(bool replace_stale);
  // Makes what the daemon lends us last until it is released.
  cachecore::Status KeepObject();
  // What an error of reading the object's first bytes is to the user.
  cachecore::Status Unreadable(const cachecore::Status& why) const;
  void EndReads() const;
  cachecore::Status Mount();
  // What Acquire and Mount are for an image of several layers: these are mounted first.
  cachecore::Status MountOverlay();
  // Once the mount is there.
  cachecore::Status Finish();
  cachecore::Status KeepRecord();
  // What the kernel meant by refusing it.
  cachecore::Status ExplainRefusal(const cachecore::Status& why, const ImageContent& content) const;
  void Undo();

  const Instance& instance() const { return request_.instance; }

  MountRequest request_;
  const cachecore::Deadline deadline_;
  MountRecord record_;
  MountPoint point_;
  std::optional<ImageMount> mount_;  // Once it is there.
  std::string object_path_;          // In the FUSE mount.
  std::string object_directory_;     // There: one with nothing else in it.
  uint64_t object_bytes_ = 0;
  bool claimed_ = false;
  bool started_instance_ = false;
  bool wrote_source_ = false;
  std::vector<std::string> absent_before_;    // Directories; the outer one of two comes first.
  std::set<std::string> others_before_;       // Mount points of the source when it was rewritten.
  std::optional<std::string> source_before_;  // The source file's contents before ours.
};

}  // namespace host

#endif  // HOST_MOUNT_MOUNT_OPERATION_H_
