#include "host/mount/erofs_mount.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <sstream>
#include <utility>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/bounded_call.h"
#include "host/content/image_kind.h"
#include "host/instance/cache_dir.h"
#include "host/instance/control_client.h"
#include "host/instance/lock_file.h"
#include "host/instance/privileges.h"
#include "host/instance/supervisor_process.h"
#include "host/mount/answering_paths.h"
#include "host/mount/persistent_request.h"
#include "host/mount/still_trying.h"
#include "host/mounts/own_directories.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

namespace control = cachecore::control;
using cachecore::CallInChild;
using cachecore::Deadline;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using control::Operation;
using nlohmann::json;

constexpr char kForm[] = "-o fsid=NAME[,domain_id=NAME][,device=NAME...]";
constexpr std::chrono::milliseconds kUndoTime{2000};
// Of a mount option's value.
constexpr size_t kPathBytesMax = 256;
// Of one question: the daemon keeps a connection for each that waits, also of a mount that was killed.
constexpr std::chrono::milliseconds kQuestionTime{10'000};
// Between the acquisition of an object and the open of its file by the kernel.
constexpr std::chrono::milliseconds kLoan{600'000};

// The value of KEY=VALUE; null for another word.
bool TakeValue(const std::string& word, const std::string& key, std::string* value) {
  if (!word.starts_with(key + "=")) return false;
  *value = word.substr(key.size() + 1);
  return true;
}

// These bytes of a file and no others: the kernel's read-ahead would ask the client for more.
Result<std::string> ReadExactly(const std::string& path, uint64_t offset, size_t length,
                                const Deadline& deadline) {
  const auto read_it = [&]() -> Result<std::string> {
    const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid()) return Status::FromErrno(errno, "open");
    posix_fadvise(file.get(), 0, 0, POSIX_FADV_RANDOM);
    std::string bytes(length, '\0');
    const ssize_t got = pread(file.get(), bytes.data(), length, static_cast<off_t>(offset));
    if (got < 0) return Status::FromErrno(errno, "read");
    bytes.resize(static_cast<size_t>(got));
    return bytes;
  };
  return CallInChild(read_it, deadline);
}

std::string LockName(const Instance& instance, const std::string& volume,
                     const std::string& object) {
  return "erofs@" + instance.name() + "-" +
         std::to_string(std::hash<std::string>()(volume + "/" + object));
}

Result<UniqueFd> OpenPoint(const std::string& path) {
  UniqueFd point(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (point.valid()) return point;
  const int error = errno;
  const std::string name = "mount point " + path;
  if (error == ENOENT) {
    return Status(error, name + " does not exist; create it: mkdir -p " + path);
  }
  if (error == ENOTDIR) {
    return Status(error, name + " is not a directory; name an empty directory");
  }
  return Status::FromErrno(error, name);
}

}  // namespace

Result<ErofsMountWords> ErofsMountWords::Parse(const std::string& text) {
  ErofsMountWords words;
  std::string rest;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, ',');) {
    std::string device;
    if (TakeValue(word, "device", &device)) {
      if (device.empty()) return Status(EINVAL, "mount option device= is empty");
      words.devices.push_back(device);
    } else if (word.starts_with("fsoffset=")) {
      return Status(EINVAL, "mount option " + word + " cannot be given with fsid=");
    } else if (!TakeValue(word, "fsid", &words.fsid) &&
               !TakeValue(word, "domain_id", &words.domain) &&
               !TakeValue(word, "instance", &words.instance) &&
               !TakeValue(word, "root", &words.root)) {
      // As the kernel takes it, and mount(8) always gives it.
      if (word != "rw") rest += (rest.empty() ? "" : ",") + word;
    }
  }
  if (words.fsid.empty()) {
    return Status(EINVAL, "mount option fsid= is missing; give the name of the image's object: " +
                              std::string(kForm));
  }
  std::vector<std::string> names = words.devices;
  names.insert(names.end(), {words.fsid, words.domain});
  for (const std::string& name : names) {
    if (name.find('/') == std::string::npos) continue;
    return Status(EINVAL, "mount option with the name " + name +
                              ": a name may have no slash; give the names that the client "
                              "serves: " +
                              kForm);
  }
  ASSIGN_OR_RETURN(words.rest, ImageMountOptions::Parse(rest, /*suid=*/true, /*dev=*/true));
  return words;
}

ErofsMount::ErofsMount(Instance instance, std::string mount_point, ErofsMountWords words,
                       Deadline deadline)
    : instance_(std::move(instance)),
      mount_point_(std::move(mount_point)),
      words_(std::move(words)),
      deadline_(deadline),
      volume_("erofs," + (words_.domain.empty() ? words_.fsid : words_.domain)) {}

Status ErofsMount::Run() {
  RETURN_IF_ERROR(RequireMountRights("mounting"));
  RETURN_IF_ERROR(CheckAnswers("mount point", mount_point_, deadline_));
  RETURN_IF_ERROR(OpenPoint(mount_point_).status().WithContext("cannot mount fsid " + words_.fsid));
  const StillTrying still_trying(/*quiet=*/false,
                                 [this] { return words_.fsid + ": " + ClientState(); });
  RETURN_IF_ERROR(CheckDevice());
  // Of two mounts of one image the second sees the first.
  ASSIGN_OR_RETURN(
      const UniqueFd lock,
      HoldLock(RunRoot(instance_.root()), LockName(instance_, volume_, words_.fsid), deadline_));
  const Result<std::string> image = Acquire(words_.fsid, control::kPrimary);
  const Status status = image.ok() ? Mount(*image) : image.status();
  if (!status.ok()) Undo();
  return Status(status).WithContext("cannot mount fsid " + words_.fsid + " on " + mount_point_);
}

Status ErofsMount::CheckDevice() const {
  const auto question = [&](std::chrono::milliseconds) {
    return control::EncodeRequest(
        {.operation = Operation::kStatus, .volume = volume_, .object = words_.fsid});
  };
  const Result<json> status = AskPersistently(instance_, question, deadline_);
  const std::string cure = "start it with a device: holdfast start" + instance_.Flags() +
                           " --cachefiles-device=/dev/cachefiles";
  if (!status.ok()) {
    const bool runs = SupervisorPid(instance_) > 0 || IsRunElsewhere(instance_);
    return Status(status.status().error(),
                  "cannot mount fsid " + words_.fsid + ": instance " + instance_.name() +
                      (runs ? " runs, and its daemon does not answer (log: " +
                                  instance_.LogFile(kDaemon) + "; "
                            : " does not run; " + cure + " (") +
                      status.status().message() + ")");
  }
  if (!JsonField(*status, control::field::kCachefiles).empty()) return {};
  return Status(EOPNOTSUPP, "cannot mount fsid " + words_.fsid + ": instance " + instance_.name() +
                                " has no cachefiles device; " + cure);
}

Result<std::string> ErofsMount::Acquire(const std::string& object, const char* use) {
  const auto question = [&](std::chrono::milliseconds left) {
    return control::EncodeRequest(
        {.operation = Operation::kAcquire,
         .volume = volume_,
         .object = object,
         .timeout_ms = std::clamp<int64_t>(left.count(), 1, kQuestionTime.count()),
         .lend_ms = static_cast<uint64_t>(kLoan.count()),
         .replace_stale = use == control::kPrimary,
         .mount = use});
  };
  const Result<json> answer = AskPersistently(instance_, question, deadline_);
  if (!answer.ok()) return Explain(object, answer.status());
  acquired_.push_back(object);
  ASSIGN_OR_RETURN(const control::AcquireAnswer acquired, control::DecodeAcquire(*answer));
  // By the path that says what it is, where the kernel takes one of that length.
  return acquired.path.size() < kPathBytesMax ? acquired.path : acquired.directory + "/" + object;
}

Status ErofsMount::Explain(const std::string& object, const Status& why) const {
  switch (why.error()) {
    case EBUSY:
      if (words_.domain.empty()) return why;
      return Status(EEXIST, "domain " + words_.domain + " has it already: " + why.message());
    case EINTR:
    case ENOBUFS:
      return why;
    case ETIMEDOUT:
      return Status(ETIMEDOUT, object + ": no answer in time: " + ClientState());
    default:  // The errno of the client is not passed on, as in the kernel.
      return Status(EIO, object + ": " + why.message() + "; " + ClientState());
  }
}

std::string ErofsMount::ClientState() const {
  const Result<json> status =
      CallControl(instance_.ControlSocket(),
                  control::EncodeRequest(
                      {.operation = Operation::kStatus, .volume = volume_, .object = words_.fsid}),
                  Deadline(kUndoTime));
  if (!status.ok()) return "the daemon does not answer now: " + status.status().message();
  const json& device = JsonField(*status, control::field::kCachefiles);
  const std::string path = JsonString(device, "path");
  if (!JsonBool(device, "open")) {
    return "no program has the cachefiles device " + path + " open; start the one that serves it";
  }
  const int64_t pid = JsonInt(device, "pid");
  const std::string program = "the program" + (pid > 0 ? " with pid " + std::to_string(pid) : "") +
                              " that has the cachefiles device " + path + " open";
  if (!JsonBool(device, "bound")) return program + " has not written `bind ondemand`";
  if (!JsonBool(device, "ondemand")) return program + " has bound it without `ondemand`";
  return program + " serves it";
}

Result<std::vector<std::string>> ErofsMount::DevicesOf(const std::string& image) const {
  ASSIGN_OR_RETURN(const std::string head, ReadExactly(image, 0, kImageHeadBytes, deadline_));
  const std::optional<ErofsDevices> table = FindErofsDevices(head);
  const size_t count = table ? table->count : 0;
  if (!words_.devices.empty() || count == 0) {
    if (words_.devices.size() == count) return words_.devices;
    return Status(EINVAL, "the image has " + std::to_string(count) + " extra devices, and " +
                              std::to_string(words_.devices.size()) + " are given by device=");
  }
  ASSIGN_OR_RETURN(const std::string slots,
                   ReadExactly(image, table->offset, count * kErofsDeviceSlotBytes, deadline_));
  std::vector<std::string> tags;
  for (size_t i = 0; i < count; ++i) {
    const std::string slot = slots.substr(std::min(slots.size(), i * kErofsDeviceSlotBytes));
    tags.push_back(slot.substr(0, std::min(slot.find('\0'), kErofsDeviceTagBytes)));
    if (tags.back().empty()) {
      return Status(EINVAL, "extra device " + std::to_string(i) +
                                " has no tag in the image; name each by device=");
    }
  }
  return tags;
}

Status ErofsMount::Mount(const std::string& image) {
  ASSIGN_OR_RETURN(const UniqueFd point, OpenPoint(mount_point_));
  RETURN_IF_ERROR(CheckHidesNothing(instance_, CacheDirOf(instance_), /*url=*/"", /*files=*/{},
                                    point.get(), mount_point_));
  ASSIGN_OR_RETURN(const std::vector<std::string> devices, DevicesOf(image));
  for (const std::string& device : devices) {
    ASSIGN_OR_RETURN(const std::string path, Acquire(device, control::kShared));
    words_.rest.own.push_back("device=" + path);
  }
  ASSIGN_OR_RETURN(const ImageMount mount, MountErofs(image, point.get(), words_.rest, deadline_));
  const Status told = Tell(mount.mount.get());
  if (!told.ok()) DetachMount(mount);
  return told;
}

Status ErofsMount::Tell(int mount) {
  struct stat info;
  if (fstat(mount, &info) != 0) return Status::FromErrno(errno, mount_point_);
  const auto question = [&](std::chrono::milliseconds) {
    return control::EncodeRequest({.operation = Operation::kMounted,
                                   .volume = volume_,
                                   .object = words_.fsid,
                                   .superblock = std::to_string(major(info.st_dev)) + ":" +
                                                 std::to_string(minor(info.st_dev)),
                                   .shared = {acquired_.begin() + 1, acquired_.end()}});
  };
  return AskPersistently(instance_, question, deadline_).status();
}

void ErofsMount::Undo() {
  for (const std::string& object : acquired_) {
    CallControl(instance_.ControlSocket(),
                control::EncodeRequest(
                    {.operation = Operation::kRelease, .volume = volume_, .object = object}),
                Deadline(kUndoTime))
        .IgnoreError("its loan ends by itself");
  }
}

}  // namespace host
