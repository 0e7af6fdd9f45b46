#include "cli/mount_operation.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <iostream>

#include "cachecore/secret_environment.h"
#include "cli/control_client.h"
#include "cli/deadline.h"
#include "cli/files.h"
#include "cli/image_kind.h"
#include "cli/image_mount.h"
#include "cli/instance_control.h"
#include "cli/lock_file.h"
#include "cli/mount_point.h"
#include "cli/object_lease.h"
#include "cli/own_mounts.h"
#include "cli/process.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using nlohmann::json;

// No instance can have this name.
constexpr char kClaimsLock[] = "@claims";
// Between two tries to acquire an object.
constexpr std::chrono::milliseconds kFirstPause{50};
constexpr std::chrono::milliseconds kLongestPause{1000};
// The daemon keeps the time of an acquire itself; this much later we stop waiting for its answer.
constexpr std::chrono::milliseconds kAnswerGrace{2000};
// An object is ours to look up for so long, should we be killed before we keep or release it.
constexpr std::chrono::milliseconds kLoanGrace{60000};
// The fetcher is handed what it needs of it.
constexpr mode_t kSourceMode = 0600;
constexpr char kErofsFeaturesDirectory[] = "/sys/fs/erofs/features";

// What the origin or the network may do better in a while.  The fetcher's refusals, such as EACCES
// and ENOENT, are certain, and so is what it calls EIO.
bool MayPass(int error) {
  switch (error) {
    case EAGAIN:
    case ECONNABORTED:
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOTCONN:
    case EPIPE:
    case ETIMEDOUT:
      return true;
    default:
      return false;
  }
}

// The error that the daemon keeps with an object; "" when it knows none.
std::string LastErrorOf(const Instance& instance, const MountRecord& record) {
  const Result<json> status =
      CallControl(instance.ControlSocket(), {{"op", "status"}}, Deadline(kAnswerGrace));
  if (!status.ok()) return "";
  for (const json& object : JsonField(*status, "objects")) {
    if (JsonString(object, "volume") == record.volume &&
        JsonString(object, "name") == record.object) {
      return JsonString(object, "error");
    }
  }
  return "";
}

}  // namespace

Status MountOperation::Run() {
  Status status = ClaimAndStart();
  if (status.ok()) status = Acquire();
  if (status.ok()) status = Mount();
  if (!status.ok()) Undo();
  return status;
}

Status MountOperation::ClaimAndStart() {
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance(), deadline_));
  DetachDeadMounts(instance());  // One of them may be on our mount point.
  const Status claim = Claim();
  RETURN_IF_ERROR(claim);
  ASSIGN_OR_RETURN(started_instance_, EnsureRunning(instance(), request_.settings, deadline_));
  WarnOfUnusedEnvironment();
  return WriteSource();
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
  record_.volume = request_.source.Volume();
  record_.object = request_.source.Object();
  record_.claimed_by = getpid();
  record_.claimer_started = ProcessStart(getpid()).value_or(0);
  record_.since_unix_s = std::time(nullptr);
  if (ClearMountPoint(table)) {
    // What was opened is the root of the mount that is gone.
    ASSIGN_OR_RETURN(const std::vector<MountEntry> now, ReadMountTable());
    ASSIGN_OR_RETURN(point_, CheckMountPoint(instance().root(), request_.mount_point, now));
  }
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
      std::cerr << "holdfast: " << point << " had lost its daemons and is mounted anew\n";
    }
  }
  for (const Instance& other : Instance::List(instance().root())) {
    std::optional<MountRecord> record = ReadMountRecord(MountRecordFile(other, point));
    if (!record || record->mount_point != point) continue;
    const OwnMount mount = LookUp(other, *record, table);
    RemoveMountRecord(other, point);
    if (mount.state != MountState::kMounted || mount.entry.mount_point == point) continue;
    record->mount_point = mount.entry.mount_point;  // It was moved away.
    (void)UpdateMountRecord(other, *record).ok();
  }
  return has_detached;
}

std::string MountOperation::SourceText() const {
  return JsonText(request_.source.ToJson()) + "\n";
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
  const bool is_taken_up = !std::includes(others_before_.begin(), others_before_.end(),
                                          others.begin(), others.end());
  if (is_taken_up) return;
  if (source_before_) {
    (void)WriteFileAtomically(path, *source_before_, kSourceMode).ok();
  } else {
    unlink(path.c_str());
  }
}

Result<bool> MountOperation::MayReplace(const std::string& before) const {
  const json wanted = request_.source.ToJson();
  const json in_use = json::parse(before, nullptr, /*allow_exceptions=*/false);
  if (in_use == wanted) return false;
  if (request_.renew || !in_use.is_object()) return true;
  ASSIGN_OR_RETURN(const std::vector<MountRecord> mounts, LiveMounts(instance()));
  const auto other = std::find_if(mounts.begin(), mounts.end(), [this](const MountRecord& mount) {
    return mount.volume == record_.volume && mount.mount_point != record_.mount_point;
  });
  if (other == mounts.end()) return true;
  switch (CompareSources(in_use, wanted)) {
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
  for (auto pause = kFirstPause;; pause = std::min(2 * pause, kLongestPause)) {
    const auto left = deadline_.Remaining();
    const json question = {{"op", "acquire"},
                           {"volume", record_.volume},
                           {"object", record_.object},
                           {"timeout_ms", std::max<int64_t>(1, left.count())},
                           {"lend_ms", (left + kLoanGrace).count()},
                           {"replace_stale", replace_stale}};
    bool answered = false;
    Result<json> answer = CallControl(instance().ControlSocket(), question,
                                      Deadline(left + kAnswerGrace), &answered);
    // Unanswered, the daemon has died in the middle of it; its successor is asked.
    const bool may_pass = answered ? MayPass(answer.status().error())
                                   : SupervisorPid(instance()) > 0 || IsRunElsewhere(instance());
    if (answer.ok() || !may_pass || StopSignalled() || left <= pause) return answer;
    const auto stopped = [] { return StopSignalled(); };
    (void)WaitUntil(stopped, Deadline(pause)).ok();
  }
}

Status MountOperation::Acquire() {
  // An image that has changed at its origin is taken anew, unless somebody still reads the old one.
  const std::string other_mount = AnyOtherOfSource();
  Result<json> answer = AskForObject(other_mount.empty());
  if (!answer.ok()) {
    const std::string& why = answer.status().message();
    if (deadline_.Expired() || MayPass(answer.status().error())) {
      return Status(answer.status().error(), "cannot mount " + record_.url + ": " + why + " (after " +
                                   std::to_string(request_.timeout.count()) +
                                   " ms; --timeout waits longer)");
    }
    // The fetcher's sentences mostly begin with the URL themselves.
    const bool names_url = why.starts_with(record_.url);
    return Status(answer.status().error(),
                  "cannot mount " + (names_url ? why : record_.url + ": " + why));
  }
  if (JsonBool(*answer, "stale")) {
    return Status(ESTALE, "cannot mount " + record_.url + ": it has changed at its origin since " +
                              (other_mount.empty() ? "it was opened; try again"
                                                   : "it was mounted on " + other_mount +
                                                         "; unmount it there first"));
  }
  object_path_ = JsonString(*answer, "path");
  object_directory_ = JsonString(*answer, "directory");
  object_bytes_ = static_cast<uint64_t>(JsonInt(*answer, "size"));
  if (request_.image_bytes != 0 && object_bytes_ != request_.image_bytes) {
    return Status(EBADMSG, "cannot mount " + record_.url + ": its image has " +
                               std::to_string(object_bytes_) +
                               " bytes at the origin, by its manifest " +
                               std::to_string(request_.image_bytes));
  }
  if (const std::string digest = JsonString(*answer, "digest"); digest != request_.source.verity) {
    return Status(EBADMSG, "cannot mount " + record_.url + ": it was to be checked against " +
                               request_.source.verity + ", but the daemon has " +
                               (digest.empty() ? "no digest" : digest) + " for it");
  }
  if (object_path_.empty() || object_directory_.empty()) {
    return Status(EPROTO, "the daemon's answer to acquire has no path");
  }
  return {};
}

Status MountOperation::Mount() {
  const std::string& url = record_.url;
  std::string head;
  if (request_.as != "file") {
    Result<std::string> read = ReadHead(object_path_, kImageHeadBytes, deadline_);
    if (read.status().error() == ETIMEDOUT) {
      return Status(ETIMEDOUT, "cannot mount " + url + ": its first bytes did not come within " +
                                   std::to_string(request_.timeout.count()) +
                                   " ms (--timeout waits longer)");
    }
    if (!read.ok()) {
      const std::string cause = LastErrorOf(instance(), record_);
      return Status(read.status().error(), "cannot mount " + url + ": its first bytes can't be read: " +
                                               (cause.empty() ? read.status().message() : cause));
    }
    head = std::move(read).value();
  }
  // A manifest says that it is an image: then a file is not what somebody may have meant.
  const bool is_said_image = request_.as == "auto" && !request_.manifest_digest.empty();
  ASSIGN_OR_RETURN(const ImageKind kind,
                   RecogniseImage(is_said_image ? "erofs" : request_.as, head, object_bytes_, url));
  record_.kind = ImageKindName(kind);
  const int point = point_.directory.get();
  Result<ImageMount> mount =
      kind == ImageKind::kErofs
          ? MountErofs(object_path_, point, request_.options, deadline_)
          : BindDirectory(object_directory_, point, request_.options, deadline_);
  if (!mount.ok()) return ExplainRefusal(mount.status(), kind, head);
  mount_ = std::move(mount).value();
  if (!point_.IsInPlace()) {
    return Status(ESTALE, "cannot mount " + url + ": " + record_.mount_point +
                              " was renamed meanwhile; nothing is mounted");
  }
  record_.device = mount_->device;
  record_.mounted = true;
  RETURN_IF_ERROR(KeepObject(instance(), record_).WithContext("cannot mount " + url));
  record_.since_unix_s = std::time(nullptr);
  return KeepRecord();
}

Status MountOperation::KeepRecord() {
  ASSIGN_OR_RETURN(record_.mount_id, MountIdOf(mount_->mount.get()));
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance()));
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const MountEntry* entry = FindMountById(table, record_.mount_id);
  if (entry == nullptr) {
    return Status(ESTALE, record_.mount_point + " was unmounted before it was ready");
  }
  record_.superblock = entry->device;
  record_.fuse_device = FuseDevice(instance(), table);
  return UpdateMountRecord(instance(), record_);
}

Status MountOperation::ExplainRefusal(const Status& why, ImageKind kind,
                                      const std::string& head) const {
  const std::string begin = "cannot mount " + record_.url + " on " + record_.mount_point + ": ";
  const bool can_be_features = why.error() == EINVAL || why.error() == EOPNOTSUPP;
  if (kind == ImageKind::kErofs && can_be_features) {
    const std::string missing = UnknownErofsFeatures(head, ListDirectory(kErofsFeaturesDirectory));
    if (!missing.empty()) {
      return Status(EOPNOTSUPP,
                    begin + "the image needs EROFS features that this kernel does not have: " +
                        missing + "; use a newer kernel, or make the image without them");
    }
  }
  return Status(why.error(), begin + why.message());
}

void MountOperation::Undo() {
  if (!claimed_) return;
  const StopSignalsIgnored until_undone;
  const Result<UniqueFd> lock = LockInstance(instance());
  if (mount_) DetachMount(*mount_);
  mount_.reset();  // Its descriptor would hold the file system.
  if (wrote_source_) UndoSource();
  const std::string file = MountRecordFile(instance(), record_.mount_point);
  const std::optional<MountRecord> ours = ReadMountRecord(file);
  if (ours && ours->claimed_by == record_.claimed_by &&
      ours->claimer_started == record_.claimer_started) {
    RemoveMountRecord(instance(), record_.mount_point);
  }
  const Result<std::vector<MountRecord>> others = LiveMounts(instance());
  if (others.ok()) ReleaseObject(instance(), record_, *others);
  if (started_instance_ && others.ok() && others->empty()) {
    (void)StopInstance(instance()).ok();  // The error that led here is the one to tell.
  } else if (rmdir(instance().MountsDir().c_str()) == 0) {
    rmdir(instance().RunDir().c_str());
  }
}

}  // namespace cli
