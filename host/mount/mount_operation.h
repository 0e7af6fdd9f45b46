// MountOperation: the steps of `holdfast mount`, each undone should a later one fail.
//
// Model    claim the mount point, start the instance, tell the fetcher where the object comes from,
//          acquire it, look at its first bytes, mount it, keep the record.
// Errors   one line that names the mount point or the URL and, where there is one, the cure.
// Threads  one thread only.
// Crash    killed half-way it leaves a claim, which the next mount there takes over, and perhaps a
//          running instance without mounts, which `holdfast stop` ends.

#ifndef CLI_MOUNT_OPERATION_H_
#define CLI_MOUNT_OPERATION_H_

#include <chrono>
#include <optional>
#include <set>
#include <string>

#include "cachecore/status.h"
#include "cli/deadline.h"
#include "cli/image_kind.h"
#include "cli/image_mount.h"
#include "cli/image_mount_options.h"
#include "cli/image_source.h"
#include "cli/instance.h"
#include "cli/mount_point.h"
#include "cli/mount_record.h"
#include "cli/settings.h"

namespace cli {

struct MountRequest {
  Instance instance;
  ImageSource source;
  std::string mount_point;  // As given.
  std::string as;           // auto, erofs or file.
  ImageMountOptions options;
  std::chrono::milliseconds timeout;  // For all of it.
  Settings settings;
  // What the user called the image, when that is not the source's URL, and the digest of the
  // manifest to which that led.
  std::string reference = "";
  std::string manifest_digest = "";
  uint64_t image_bytes = 0;  // As the manifest says; 0: whatever the origin has.
  bool renew = false;        // May replace the source of a mount that lives.
  std::optional<Deadline> deadline = std::nullopt;  // Where `timeout` has begun to run before.
};

class MountOperation {
 public:
  explicit MountOperation(MountRequest request)
      : request_(std::move(request)),
        deadline_(request_.deadline.value_or(Deadline(request_.timeout))) {}
  // Returns once the mount is usable, or with everything undone.
  cachecore::Status Run();

 private:
  cachecore::Status ClaimAndStart();
  // Says so when keys that were meant for a new instance meet one that runs.
  void WarnOfUnusedEnvironment() const;
  cachecore::Status Claim();
  // Whether a dead mount was there.
  bool ClearMountPoint(const std::vector<MountEntry>& table) const;
  std::string SourceText() const;
  std::set<std::string> OthersOfSource() const;
  // One of them that is alive, or "".
  std::string AnyOtherOfSource() const;
  cachecore::Status WriteSource();
  // Whether the source file is to be written although it may be another mount's.
  cachecore::Result<bool> MayReplace(const std::string& before) const;
  void UndoSource() const;
  cachecore::Status Acquire();
  // Asks the daemon for the object, again while another try may go better.
  cachecore::Result<nlohmann::json> AskForObject(bool replace_stale);
  cachecore::Status Mount();
  cachecore::Status KeepRecord();
  // What the kernel meant by refusing an image that begins with `head`.
  cachecore::Status ExplainRefusal(const cachecore::Status& why, ImageKind kind,
                                   const std::string& head) const;
  void Undo();

  const Instance& instance() const { return request_.instance; }

  const MountRequest request_;
  const Deadline deadline_;
  MountRecord record_;
  MountPoint point_;
  std::optional<ImageMount> mount_;  // Once it is there.
  std::string object_path_;          // In the FUSE mount.
  std::string object_directory_;     // There: one with nothing else in it.
  uint64_t object_bytes_ = 0;
  bool claimed_ = false;
  bool started_instance_ = false;
  bool wrote_source_ = false;
  std::set<std::string> others_before_;  // Mount points of the source when it was rewritten.
  std::optional<std::string> source_before_;  // The source file's contents before ours.
};

}  // namespace cli

#endif  // CLI_MOUNT_OPERATION_H_
