#include "host/mount/mount_operation.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <iostream>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/environment/secret_environment.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/files.h"
#include "host/config/config_settings.h"
#include "host/content/image_file_system.h"
#include "host/content/image_kind.h"
#include "host/images/source_files.h"
#include "host/instance/control_client.h"
#include "host/instance/lock_file.h"
#include "host/instance/privileges.h"
#include "host/instance/settings.h"
#include "host/mount/image_mount.h"
#include "host/mount/layered_mount.h"
#include "host/mount/persistent_request.h"
#include "host/mount/saved_mounts.h"
#include "host/mount/still_trying.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/mount_point.h"
#include "host/mounts/object_cause.h"
#include "host/mounts/object_lease.h"
#include "host/mounts/own_directories.h"
#include "host/mounts/own_mounts.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::Deadline;
using cachecore::FindMountById;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::ListDirectory;
using cachecore::MakePrivateDirectory;
using cachecore::MountEntry;
using cachecore::MountIdOf;
using cachecore::ProcessStart;
using cachecore::ReadFile;
using cachecore::ReadMountTable;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignalsIgnored;
using cachecore::UniqueFd;
using cachecore::WriteFileAtomically;
using control::Operation;
using nlohmann::json;

// No instance can have this name.
constexpr char kClaimsLock[] = "@claims";
// An object is ours to look up for so long, should we be killed before we keep or release it.
constexpr std::chrono::milliseconds kLoanGrace{60000};
// To undo is worth a wait for the lock beyond --timeout, which has often passed by then.
constexpr std::chrono::milliseconds kUndoTimeout{10000};
constexpr std::chrono::milliseconds kShutTime{2000};
// The fetcher is handed what it needs of it.
constexpr mode_t kSourceMode = 0600;
constexpr char kErofsFeaturesDirectory[] = "/sys/fs/erofs/features";

std::vector<std::string> AbsentOf(std::vector<std::string> paths) {
  std::erase_if(paths, [](const std::string& path) { return access(path.c_str(), F_OK) == 0; });
  return paths;
}

}  // namespace

Status MountOperation::Run() {
  const Status status = Attempt();
  if (!status.ok()) Undo();
  return status;
}

Status MountOperation::Attempt() {
  if (!request_.layers.empty()) {
    RETURN_IF_ERROR(
        CheckOverlayOptions(request_).WithContext("cannot mount " + request_.reference));
  }
  {
    const StillTrying still_trying(request_.quiet, [this] { return Cause(); });
    RETURN_IF_ERROR(ClaimAndStart());
    if (request_.layers.empty()) {
      RETURN_IF_ERROR(Acquire());
      return Mount();
    }
  }
  return MountOverlay();  // Each of its layers says itself what it waits for.
}

std::string MountOperation::Cause() const {
  if (!claimed_) return "another command holds a lock that the mount needs";
  std::string cause = LastErrorOf(instance(), record_);
  std::vector<std::string> urls;
  for (const ImageUrl& origin : request_.source.origins) urls.push_back(origin.Public());
  if (cause.empty()) cause = CauseOfOpen(instance(), urls);
  return cause.empty() ? record_.url + ": nothing has come yet" : cause;
}

Status MountOperation::ClaimAndStart() {
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance(), deadline_));
  Result<json> files = FilesOfSource(request_.source);
  if (!files.ok()) {
    return std::move(files).status().WithContext("cannot mount " + request_.source.PublicUrl());
  }
  request_.source.files = std::move(files).value();
  absent_before_ = AbsentOf({instance().LogDir(), instance().StateDir(), instance().SourcesDir(),
                             ConfiguredCacheDir(instance(), request_.settings)});
  DetachDeadMounts(instance());  // One of them may be on our mount point.
  RETURN_IF_ERROR(Claim());
  ASSIGN_OR_RETURN(started_instance_, EnsureRunning(instance(), request_.settings, deadline_));
  // What is asked of it goes to the program of its device, and so would this image.
  bool has_device = false;
  if (!started_instance_) {
    Result<bool> found = HasCachefilesDevice(instance(), deadline_);
    if (!found.ok()) return std::move(found).status().WithContext("cannot mount " + record_.url);
    has_device = *found;
  }
  if (has_device) {
    return Status(EBUSY, "cannot mount " + record_.url + ": instance " + instance().name() +
                             " serves a cachefiles device, and fetches nothing itself; use another "
                             "one: --instance=NAME (an image of the device is mounted by holdfast "
                             "mount-erofs)");
  }
  WarnOfUnusedEnvironment();
  return request_.layers.empty() ? WriteSource() : Status();
}

void MountOperation::WarnOfUnusedEnvironment() const {
  const auto is_s3 = [](const ImageUrl& url) { return url.base.starts_with("s3:"); };
  const std::vector<ImageUrl>& origins = request_.source.origins;
  if (started_instance_ || !cachecore::SecretEnvironment::IsSet() ||
      !request_.source.access.s3_profile.empty() ||
      std::none_of(origins.begin(), origins.end(), is_s3)) {
    return;
  }
  std::cerr << "holdfast: instance " << instance().name()
            << " already runs: it signs with what it was started with, not with the AWS keys in "
               "this environment (--s3-profile takes keys from a file)\n";
}

// All instances share one lock here: two of them could want the same mount point.
Status MountOperation::Claim() {
  ASSIGN_OR_RETURN(const UniqueFd lock,
                   HoldLock(RunRoot(instance().root()), kClaimsLock, deadline_));
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  ASSIGN_OR_RETURN(point_, CheckMountPoint(instance().root(), request_.mount_point, table));
  record_.mount_point = point_.path;
  record_.url = request_.reference.empty() ? request_.source.PublicUrl() : request_.reference;
  record_.manifest = request_.manifest_digest;
  if (request_.layers.empty()) {
    record_.volume = request_.source.Volume();
    record_.object = request_.source.Object();
  } else {
    DescribeOverlay(instance(), request_.layers, &record_);
  }
  record_.claimed_by = getpid();
  record_.claimer_started = ProcessStart(getpid()).value_or(0);
  record_.since_unix_s = std::time(nullptr);
  if (ClearMountPoint(table)) {
    // What was opened is the root of the mount that is gone.
    ASSIGN_OR_RETURN(const std::vector<MountEntry> now, ReadMountTable());
    ASSIGN_OR_RETURN(point_, CheckMountPoint(instance().root(), request_.mount_point, now));
  }
  RETURN_IF_ERROR(CheckHidesNothing(instance(), ConfiguredCacheDir(instance(), request_.settings),
                                    record_.url, request_.source.files, point_.directory.get(),
                                    point_.path));
  RETURN_IF_ERROR(ClaimMountPoint(instance(), record_));
  claimed_ = true;
  return {};
}

// The check has found what is here to be dead or stale, whosever it is.
bool MountOperation::ClearMountPoint(const std::vector<MountEntry>& table) const {
  const std::string& point = record_.mount_point;
  bool has_detached = false;
  if (const std::optional<OwnedMount> dead = FindOwned(instance().root(), point, table)) {
    const bool is_at_point = dead->mount.is_here && dead->mount.entry.mount_point == point;
    has_detached = is_at_point && Detach(dead->mount.entry);
    if (has_detached) {
      std::cerr << "holdfast: " << point << " had lost its daemons and is mounted again\n";
    }
  }
  for (const Instance& other : Instance::List(instance().root())) {
    std::optional<MountRecord> record = ReadMountRecord(MountRecordFile(other, point));
    if (!record || record->mount_point != point) continue;
    const OwnMount mount = LookUp(other, *record, table);
    RemoveMountRecord(other, point);
    if (mount.state != MountState::kMounted || mount.entry.mount_point == point) continue;
    record->mount_point = mount.entry.mount_point;  // It was moved away.
    UpdateMountRecord(other, *record).IgnoreError("a moved mount goes on without its record");
  }
  return has_detached;
}

std::string MountOperation::SourceText() const {
  return RecordText(request_.source.ToJson()) + "\n";
}

// The mount points, but ours, of what uses the same source.
std::set<std::string> MountOperation::OthersOfSource() const {
  std::set<std::string> points;
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  for (const MountRecord& record : ListMountRecords(instance())) {
    if (record.volume != record_.volume || record.mount_point == record_.mount_point) continue;
    if (!table.ok() || LookUp(instance(), record, *table).state != MountState::kGone) {
      points.insert(record.mount_point);
    }
  }
  return points;
}

std::string MountOperation::AnyOtherOfSource() const {
  const std::vector<std::string> files = ListMountRecordFiles(instance());
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  for (const std::string& file : files) {
    const std::optional<MountRecord> record = ReadMountRecord(file);
    if (!record || record->volume != record_.volume) continue;
    if (record->mount_point == record_.mount_point) continue;
    const MountState state =
        table.ok() ? LookUp(instance(), *record, *table).state : MountState::kMounted;
    if (state == MountState::kMounting || state == MountState::kMounted) return record->mount_point;
  }
  return "";
}

Status MountOperation::WriteSource() {
  const std::string path = instance().SourceFile(record_.volume);
  RETURN_IF_ERROR(MakePrivateDirectory(instance().SourcesDir()));
  Result<std::string> before = ReadFile(path);
  if (before.ok()) {
    ASSIGN_OR_RETURN(const bool may_replace, MayReplace(*before));
    if (!may_replace) return {};
    source_before_ = *before;
    others_before_ = OthersOfSource();
  }
  wrote_source_ = true;
  return WriteFileAtomically(path, SourceText(), kSourceMode);
}

// The source goes back to what it was, unless another mount has taken it up meanwhile.
void MountOperation::UndoSource() const {
  const std::string path = instance().SourceFile(record_.volume);
  const std::string text = SourceText();
  const Result<std::string> now = ReadFile(path);
  if (!now.ok() || *now != text || source_before_ == text) return;
  const std::set<std::string> others = OthersOfSource();
  const bool is_taken_up =
      !std::includes(others_before_.begin(), others_before_.end(), others.begin(), others.end());
  if (is_taken_up) return;
  if (source_before_) {
    WriteFileAtomically(path, *source_before_, kSourceMode).IgnoreError("the first error counts");
  } else {
    unlink(path.c_str());
  }
}

Result<bool> MountOperation::MayReplace(const std::string& before) const {
  const json wanted = json::parse(SourceText(), nullptr, /*allow_exceptions=*/false);
  const json in_use = json::parse(before, nullptr, /*allow_exceptions=*/false);
  if (in_use == wanted) return false;
  if (request_.renew || !in_use.is_object()) return true;
  ASSIGN_OR_RETURN(const std::vector<MountRecord> mounts, LiveMounts(instance()));
  const auto other = std::find_if(mounts.begin(), mounts.end(), [this](const MountRecord& mount) {
    return mount.volume == record_.volume && mount.mount_point != record_.mount_point;
  });
  if (other == mounts.end()) return true;
  // Files that were found and not given ask for nothing: what the other mount has goes on.
  switch (CompareSources(in_use, wanted, request_.source.has_default_auth_file)) {
    case SourceChange::kNone:
      break;
    case SourceChange::kSignature:
      std::cerr << "holdfast: " << record_.url << " is mounted on " << other->mount_point
                << " with another signature, which is kept; --renew replaces it\n";
      break;
    case SourceChange::kAccess:
      return Status(EBUSY, "cannot mount " + record_.url + ": it is mounted on " +
                               other->mount_point +
                               " with other options of access; give the same, unmount it there "
                               "first, or replace them for both with --renew");
  }
  return false;
}

Result<json> MountOperation::AskForObject(bool replace_stale) {
  const auto question = [&](std::chrono::milliseconds left) {
    return control::EncodeRequest({.operation = Operation::kAcquire,
                                   .volume = record_.volume,
                                   .object = record_.object,
                                   .timeout_ms = std::max<int64_t>(1, left.count()),
                                   .lend_ms = static_cast<uint64_t>((left + kLoanGrace).count()),
                                   .replace_stale = replace_stale});
  };
  return AskPersistently(instance(), question, deadline_);
}

Status MountOperation::KeepObject() {
  const auto question = [&](std::chrono::milliseconds) {
    return control::EncodeRequest(
        {.operation = Operation::kKeep, .volume = record_.volume, .object = record_.object});
  };
  return AskPersistently(instance(), question, deadline_).status();
}

Status MountOperation::Acquire() {
  // An image that has changed at its origin is refetched unless a mount uses the old version.
  const std::string other_mount = AnyOtherOfSource();
  Result<json> answer = AskForObject(other_mount.empty());
  if (!answer.ok()) {
    const std::string& why = answer.status().message();
    if (deadline_.Expired() || MayPass(answer.status().error())) {
      return Status(answer.status().error(),
                    "cannot mount " + record_.url + ": " + why + " (after " +
                        std::to_string(request_.timeout.count()) + " ms; --timeout waits longer)");
    }
    // The fetcher's sentences mostly begin with the URL themselves.
    const bool names_url = why.starts_with(record_.url);
    return Status(answer.status().error(),
                  "cannot mount " + (names_url ? why : record_.url + ": " + why));
  }
  ASSIGN_OR_RETURN(const control::AcquireAnswer acquired, control::DecodeAcquire(*answer));
  if (acquired.stale) {
    return Status(ESTALE, "cannot mount " + record_.url + ": it has changed at its origin since " +
                              (other_mount.empty() ? "it was opened; try again"
                                                   : "it was mounted on " + other_mount +
                                                         "; unmount it there first"));
  }
  object_path_ = acquired.path;
  object_directory_ = acquired.directory;
  object_bytes_ = acquired.size_bytes;
  if (request_.image_bytes != 0 && object_bytes_ != request_.image_bytes) {
    return Status(EBADMSG, "cannot mount " + record_.url + ": its image has " +
                               std::to_string(object_bytes_) +
                               " bytes at the origin, by its manifest " +
                               std::to_string(request_.image_bytes));
  }
  if (acquired.digest != request_.source.verity) {
    return Status(EBADMSG, "cannot mount " + record_.url + ": it was to be checked against " +
                               request_.source.verity + ", but the daemon has " +
                               (acquired.digest.empty() ? "no digest" : acquired.digest) +
                               " for it");
  }
  return {};
}

Status MountOperation::Unreadable(const Status& why) const {
  const std::string begin = "cannot mount " + record_.url + ": its first bytes ";
  const std::string cause = LastErrorOf(instance(), record_);
  if (why.error() == ETIMEDOUT) {
    return Status(ETIMEDOUT, begin + "did not come within " +
                                 std::to_string(request_.timeout.count()) + " ms" +
                                 (cause.empty() ? "" : ": " + cause) + " (--timeout waits longer)");
  }
  return Status(why.error(), begin + "can't be read: " + (cause.empty() ? why.message() : cause));
}

// The kernel may be reading for a child of ours that was killed.  It lets nobody sync(2) the file
// system that it makes, and so the machine, until its reads have ended.
void MountOperation::EndReads() const {
  if (!AnyOtherOfSource().empty()) return;
  CallControl(
      instance().ControlSocket(),
      control::EncodeRequest(
          {.operation = Operation::kShut, .volume = record_.volume, .object = record_.object}),
      Deadline(kShutTime))
      .IgnoreError("the error that led here is the one to tell");
}

Status MountOperation::Mount() {
  const std::string& url = record_.url;
  ContentChoice choice = request_.content;
  // A manifest says that it is an image: then it is not mounted as a file.
  if (choice.as == "auto" && !request_.manifest_digest.empty()) choice.as = kErofsType;
  const ImageObject object{url, object_path_, object_bytes_,
                           [this](const Status& why) { return Unreadable(why); }};
  ASSIGN_OR_RETURN(const ImageContent content, FindContent(object, choice, deadline_));
  if (!content.note.empty() && !request_.quiet) std::cerr << "holdfast: " << content.note << "\n";
  record_.kind = content.kind;
  record_.offset = content.area.offset;
  Result<ImageMount> mount = MountContent(content, object_path_, object_directory_,
                                          point_.directory.get(), request_.options, deadline_);
  if (!mount.ok()) {
    EndReads();
    return ExplainRefusal(mount.status(), content);
  }
  mount_ = std::move(mount).value();
  record_.device = mount_->device;
  return Finish();
}

Status MountOperation::MountOverlay() {
  for (size_t i = 0; i < request_.layers.size(); ++i) {
    RETURN_IF_ERROR(MountLayer(request_, i, record_.layers[i], deadline_)
                        .WithContext("cannot mount " + record_.url));
  }
  Result<ImageMount> mount = OverlayLayers(record_.layers, record_.device, point_.directory.get(),
                                           request_.options, deadline_);
  if (!mount.ok())
    return std::move(mount).status().WithContext("cannot mount " + record_.url + " on " +
                                                 record_.mount_point);
  mount_ = std::move(mount).value();
  return Finish();
}

Status MountOperation::Finish() {
  const std::string& url = record_.url;
  if (!point_.IsInPlace()) {
    return Status(ESTALE, "cannot mount " + url + ": " + record_.mount_point +
                              " was renamed meanwhile; nothing is mounted");
  }
  record_.mounted = true;
  // What an overlay shows is kept with its layers.
  if (!record_.object.empty()) {
    RETURN_IF_ERROR(KeepObject().WithContext("cannot mount " + url));
  }
  record_.since_unix_s = std::time(nullptr);
  return KeepRecord();
}

Status MountOperation::KeepRecord() {
  ASSIGN_OR_RETURN(record_.mount_id, MountIdOf(mount_->mount.get()));
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance(), deadline_));
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const MountEntry* entry = FindMountById(table, record_.mount_id);
  if (entry == nullptr) {
    return Status(ESTALE, record_.mount_point + " was unmounted before it was ready");
  }
  if (request_.restores && !ReadSavedMount(instance(), record_.mount_point).ok()) {
    return Status(ESTALE, record_.mount_point + " is not persistent any more");
  }
  record_.superblock = entry->device;
  record_.fuse_device = FuseDevice(instance(), table);
  RETURN_IF_ERROR(UpdateMountRecord(instance(), record_));
  return SaveMount(instance(), request_.save, record_);
}

Status MountOperation::ExplainRefusal(const Status& why, const ImageContent& content) const {
  const std::string begin = "cannot mount " + record_.url + " on " + record_.mount_point + ": ";
  const bool can_be_features = why.error() == EINVAL || why.error() == EOPNOTSUPP;
  if (content.kind == kErofsType && can_be_features) {
    const std::string missing =
        UnknownErofsFeatures(content.head, ListDirectory(kErofsFeaturesDirectory));
    if (!missing.empty()) {
      return Status(EOPNOTSUPP,
                    begin + "the image needs EROFS features that this kernel does not have: " +
                        missing + "; use a newer kernel, or make the image without them");
    }
  }
  if (why.error() == EPERM && IsInUserNamespace()) {
    return Status(EPERM, begin + why.message() + ": the root of a user namespace may not mount " +
                             content.kind +
                             "; run holdfast as root outside of it, or mount --as=file");
  }
  return Status(why.error(), begin + why.message());
}

void MountOperation::Undo() {
  if (!claimed_) return;
  const StopSignalsIgnored until_undone;
  if (mount_) DetachMount(*mount_);
  mount_.reset();  // Its descriptor would hold the file system.
  const Result<UniqueFd> lock = LockInstance(instance(), Deadline(kUndoTimeout));
  if (!lock.ok()) {
    std::cerr << "holdfast: " << lock.status().message() << "; the claim to " << record_.mount_point
              << " goes with the next command\n";
    return;
  }
  if (wrote_source_) UndoSource();
  const std::string file = MountRecordFile(instance(), record_.mount_point);
  const std::optional<MountRecord> ours = ReadMountRecord(file);
  if (ours && ours->claimed_by == record_.claimed_by &&
      ours->claimer_started == record_.claimer_started) {
    RemoveMountRecord(instance(), record_.mount_point);
  }
  if (!record_.layers.empty()) ReleaseUnusedLayers(instance());
  const Result<std::vector<MountRecord>> others = LiveMounts(instance());
  if (others.ok()) ReleaseObject(instance(), record_, *others);
  if (started_instance_ && others.ok() && others->empty()) {
    StopInstance(instance()).IgnoreError("the error that led here is the one to tell");
  } else if (rmdir(instance().MountsDir().c_str()) == 0) {
    rmdir(instance().RunDir().c_str());
  }
  // The innermost first.  One that has something in it, such as a cache or a log, stays.
  for (auto path = absent_before_.rbegin(); path != absent_before_.rend(); ++path) {
    rmdir(path->c_str());
  }
}

}  // namespace host
