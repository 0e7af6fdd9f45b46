#include "fusefs/cachefiles/cachefiles_device.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "cachecore/values/limits.h"
#include "fusefs/inject/client_directory.h"
#include "fusefs/inject/injection_job.h"
#include "fusefs/inject/proc_files.h"

namespace fusefs {

using cachecore::ByteRange;
using cachecore::MsgId;
using cachecore::ObjectId;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
namespace wire = cachecore::wire;

namespace {

constexpr uint64_t kPageSize = 4096;
// Meanwhile the device does nothing else.
constexpr std::chrono::seconds kPatienceWithDirectory{5};

uint64_t PageStart(uint64_t offset) { return offset - offset % kPageSize; }
uint64_t PageEnd(uint64_t offset) { return PageStart(offset + kPageSize - 1); }

// Returns what the disk has taken; *error: why it took no more, or 0.
uint64_t WriteAll(int file, std::string_view bytes, uint64_t offset, int* error) {
  uint64_t done = 0;
  *error = 0;
  while (done < bytes.size() && *error == 0) {
    const ssize_t written =
        pwrite(file, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (written < 0 && errno != EINTR) *error = errno;
    if (written == 0) *error = ENOSPC;
    if (written > 0) done += static_cast<uint64_t>(written);
  }
  return done;
}

std::string CureOf(int error) {
  if (error == ENOSPC) return "make room on its file system";
  if (error == EDQUOT) return "raise the quota of the user of holdfastd there, or make room";
  if (error == EMFILE || error == ENFILE) return "raise the limit of open files of holdfastd";
  if (error == EROFS) return "mount its file system writable";
  return "check its disk";
}

}  // namespace

int CachefilesDevice::Open(pid_t caller) {
  if (!MayAdministrate(caller)) return -EPERM;
  if (is_open_ || !files_.empty()) return -EBUSY;
  is_open_ = true;
  NoteClient(caller);
  return 0;
}

void CachefilesDevice::NoteClient(pid_t client) {
  if (std::exchange(client_, client) != client) ++revision_;
}

CachefilesDevice::Description CachefilesDevice::Describe() const {
  return {is_open_,        client_, commands_.is_bound(), is_attached_, commands_.directory(),
          commands_.tag(), trouble_};
}

void CachefilesDevice::NoteTrouble(const std::string& trouble) {
  if (std::exchange(trouble_, trouble) == trouble) return;
  ++revision_;
  if (trouble.empty()) {
    LOG(INFO) << "writes of the cachefiles daemon are stored again";
  } else {
    LogError("a write of the cachefiles daemon was not stored: " + trouble);
  }
}

void CachefilesDevice::Close() {
  is_open_ = false;
  NoteClient(0);
  if (std::exchange(is_attached_, false)) {
    LOG(INFO) << "the cachefiles device was closed: its client is detached";
    is_dead_ = true;
    cache_->device().Detach();
  }
  for (const auto& [id, instance] : instances_) changed_.insert(id);
  std::erase_if(instances_, [](const auto& entry) { return entry.second.handle == 0; });
  ForgetIfUnused();
}

void CachefilesDevice::CloseAll() {
  files_.clear();
  for (const auto& [id, instance] : instances_) changed_.insert(id);
  instances_.clear();
  Close();
}

// The last of them all: the next open finds the device as at first.
void CachefilesDevice::ForgetIfUnused() {
  if (is_open_ || !files_.empty()) return;
  if (commands_.is_bound()) store_->Remove(kStoredDirectory);
  commands_ = {};
  commands_changed_ = true;
  directory_->Unbind();
}

Result<DeviceMessage> CachefilesDevice::Read(pid_t caller, size_t room) {
  NoteClient(caller);
  DeviceMessage message;
  if (!commands_.is_bound()) return message;
  if (!is_attached_) {
    message.bytes = directory_->StatusLine();
    if (message.bytes.size() > room) return Status(EMSGSIZE, "the status line is longer");
    return message;
  }
  int failure = 0;
  std::optional<cachecore::OutgoingMessage> outgoing = cache_->device().NextMessage(room, &failure);
  if (failure != 0) {
    // An OPEN that cannot be given ends the instance that is open.
    for (const auto& [id, instance] : instances_) changed_.insert(id);
    // The others are the client's own: no room, or a descriptor that it still has.
    if (failure != EMSGSIZE && failure != EEXIST) {
      LogError("an OPEN of the cachefiles device failed: holdfastd cannot open the data file: " +
               std::string(std::strerror(failure)) + "; " + CureOf(failure));
    }
    return Status(failure, "the message cannot be given");
  }
  if (!outgoing) return message;
  message.bytes = wire::EncodeMessage(outgoing->message, 0);
  if (const auto* open = std::get_if<wire::OpenMessage>(&outgoing->message)) {
    message.kind = DeviceMessage::Kind::kOpen;
    message.msg_id = open->msg_id;
    message.object = open->object_id;
    instances_[open->object_id] = {std::move(outgoing->data_fd), outgoing->object, open->msg_id,
                                   caller, 0};
    changed_.insert(open->object_id);
    memory_->PutRequest(*outgoing);
  } else if (const auto* read = std::get_if<wire::ReadMessage>(&outgoing->message)) {
    message.kind = DeviceMessage::Kind::kRead;
    message.msg_id = read->msg_id;
    memory_->PutRequest(*outgoing);
  } else if (const auto* close = std::get_if<wire::CloseMessage>(&outgoing->message)) {
    message.kind = DeviceMessage::Kind::kClose;
    message.msg_id = close->msg_id;
    changed_.insert(close->object_id);
  }
  if (static_cast<int32_t>(message.msg_id.value - last_msg_id_.value) > 0) {
    last_msg_id_ = message.msg_id;
  }
  return message;
}

uint64_t CachefilesDevice::AddressOf(MsgId id) { return kIdWindow + id.value % kIdWindowSize; }

MsgId CachefilesDevice::IdOf(uint32_t number) const {
  if (number < kIdWindow || number >= kIdWindow + kIdWindowSize) return {number};
  // The id next to the last one that has this address: it may not have been read yet.
  const uint32_t last = last_msg_id_.value;
  const auto ahead = static_cast<uint32_t>((number - last) % kIdWindowSize);
  constexpr auto kSize = static_cast<uint32_t>(kIdWindowSize);
  const uint32_t nearest = last + ahead - (ahead < kSize / 2 ? 0 : kSize);
  // Unless an older message with this address is unanswered.
  uint32_t id = nearest;
  do {
    if (memory_->HasRequest({id})) return {id};
    id -= kSize;
  } while (id != nearest);
  return {nearest};
}

std::map<ObjectId, CachefilesDevice::Instance>::iterator CachefilesDevice::FindUnopened(
    MsgId msg_id) {
  return std::ranges::find_if(instances_, [msg_id](const auto& entry) {
    return entry.second.msg_id == msg_id && entry.second.handle == 0;
  });
}

bool CachefilesDevice::IsUnanswered(const DeviceMessage& message) {
  if (!is_attached_) return false;
  if (message.kind == DeviceMessage::Kind::kOpen) {
    const auto it = instances_.find(message.object);
    return it != instances_.end() && it->second.handle == 0 && it->second.msg_id == message.msg_id;
  }
  const std::vector<cachecore::RequestInfo> requests = cache_->DescribeRequests();
  return std::ranges::any_of(requests, [&message](const cachecore::RequestInfo& request) {
    return request.id == message.msg_id && request.delivered;
  });
}

void CachefilesDevice::SetReader(const DeviceMessage& open, pid_t reader) {
  // An OPEN that was restored has the id of the one before it, whose instance may be there still.
  const auto it = instances_.find(open.object);
  if (it == instances_.end() || it->second.handle != 0) return;
  it->second.reader = reader;
  changed_.insert(it->first);
}

int64_t CachefilesDevice::Write(pid_t caller, std::string_view text) {
  writer_ = caller;
  ++revision_;
  commands_changed_ = true;
  return commands_.Execute(text, this);
}

int CachefilesDevice::FailOpen(uint32_t msg_id, int error) {
  if (error <= 0 || error > kLargestErrno) error = EIO;
  const Status cause = Status::FromErrno(
      error, error == EPERM ? "the cachefiles client could not open the object's file, which needs "
                              "CAP_DAC_READ_SEARCH"
                            : "the cachefiles client could not open the object's file");
  LogError(cause.message());
  return FailOpen(MsgId{msg_id}, cause);
}

int CachefilesDevice::FailOpen(MsgId msg_id, const Status& cause) {
  if (!is_attached_) return -EINVAL;
  const auto it = FindUnopened(msg_id);
  if (it == instances_.end()) return -EINVAL;
  const ObjectId id = it->first;
  cache_->device().FailOpen(msg_id, cause);
  DropEnded();
  memory_->RenewRequest(msg_id);  // On a disk that takes no writes it is tried again.
  // The file was not opened, so that no close will say so.
  EndInstance(id);
  return 0;
}

short CachefilesDevice::Readiness() {
  const bool has_news = is_attached_ ? cache_->device().HasMessage()
                                     : commands_.is_bound() && directory_->has_changed();
  return static_cast<short>((has_news ? POLLIN | POLLRDNORM : 0) |
                            (directory_->is_culling() ? POLLOUT | POLLWRNORM : 0));
}

int CachefilesDevice::Execute(const wire::Command& command) {
  return cache_->device().Execute({Result<wire::Command>(command)}).front();
}

int CachefilesDevice::Bind(const std::string& directory, bool ondemand) {
  Result<UniqueFd> found = OpenDirectoryOf(writer_, directory, kPatienceWithDirectory);
  if (!found.ok()) {
    // What is of no path: people look for it here.
    const int error = found.status().error();
    if (error == ETIMEDOUT || error == EAGAIN) LogError("bind: " + found.status().message());
    return -found.status().error();
  }
  UniqueFd opened = std::move(found).value();
  // The reads of its images would go to a client that has others by the same names.
  const uint32_t mark = MarkOf(opened.get());
  if (last_directory_ != 0 && last_directory_ != mark && directory_->IsAnyUsed()) {
    cache_->log().Error("a cachefiles client may not bind " + directory +
                        " while an image of the directory that was bound before is mounted, or is "
                        "acquired on the control socket; unmount it first, or release it");
    return -EBUSY;
  }
  // The same open file, and so the same lock.
  const UniqueFd again(fcntl(opened.get(), F_DUPFD_CLOEXEC, 0));
  const int bound =
      directory_->Bind(std::move(opened), commands_.file_limits(), commands_.block_limits());
  if (bound != 0) return bound;
  if (!KeepMark(mark) || (ondemand && !Attach())) {
    directory_->Unbind();
    return -EIO;
  }
  if (!store_->available()) return 0;
  const Status stored = store_->Store(kStoredDirectory, again.get());
  LOG_IF(ERROR, !stored.ok()) << "the next holdfastd will not have the directory that the "
                                 "cachefiles device is bound to: "
                              << stored.message();
  return 0;
}

bool CachefilesDevice::Attach() {
  const Result<cachecore::Generation> generation = cache_->device().Attach();
  if (!generation.ok()) {
    LOG(ERROR) << "a cachefiles daemon cannot attach: " << generation.status().message();
    return false;
  }
  LOG(INFO) << "a cachefiles daemon is attached, generation " << generation->value;
  is_attached_ = true;
  is_dead_ = false;
  return true;
}

int CachefilesDevice::Copen(const wire::CopenCommand& command) {
  if (!is_attached_) return -EINVAL;
  wire::CopenCommand translated = command;
  translated.msg_id = IdOf(command.msg_id.value);
  const int result = Execute(translated);
  for (const auto& [id, instance] : instances_) {
    if (instance.msg_id == translated.msg_id) changed_.insert(id);
  }
  // The kernel takes any size, and the OPEN fails later.
  return result == -EFBIG ? 0 : result;
}

int CachefilesDevice::Restore() {
  if (!is_attached_) return 0;
  // A reader that died before it had opened the file of its OPEN will never close it.
  std::vector<ObjectId> lost;
  for (const auto& [id, instance] : instances_) {
    if (instance.handle != 0) continue;
    if (instance.reader == 0 || access(ProcPath(instance.reader, "").c_str(), F_OK) != 0) {
      lost.push_back(id);
    }
  }
  for (const ObjectId id : lost) EndInstance(id);
  const int result = Execute(wire::RestoreCommand{});
  DropEnded();
  memory_->RenewRequests();
  return result;
}

Result<UniqueFd> CachefilesDevice::OpenWorkingDirectory() const {
  // Nothing is asked of a file system that needs this thread for its answer, as the device itself
  // and what is mounted from an object.
  const UniqueFd here(open(ProcPath(writer_, "cwd").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!here.valid()) return Status(ENOTDIR, "no working directory");
  struct statx at;
  if (statx(here.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &at) != 0) {
    return Status(EIO, "the working directory cannot be looked at");
  }
  if (!directory_->IsOnItsFileSystem(makedev(at.stx_dev_major, at.stx_dev_minor))) {
    return Status(ENOENT, "the working directory is not on the cache's file system");
  }
  UniqueFd opened(openat(here.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.valid()) return Status(EIO, "the working directory cannot be opened");
  return opened;
}

int CachefilesDevice::Cull(const std::string& name) {
  const Result<UniqueFd> here = OpenWorkingDirectory();
  return here.ok() ? directory_->Cull(here->get(), name) : -here.status().error();
}

int CachefilesDevice::InUse(const std::string& name) {
  const Result<UniqueFd> here = OpenWorkingDirectory();
  return here.ok() ? directory_->InUse(here->get(), name) : -here.status().error();
}

Result<CachefilesDevice::Handle> CachefilesDevice::OpenObject(ObjectId id, pid_t caller) {
  const auto it = instances_.find(id);
  if (it == instances_.end() || it->second.handle != 0) {
    return Status(ENXIO, "no OPEN of this object waits for its file");
  }
  if (caller == 0 || it->second.reader != caller)
    return Status(EPERM, "another thread has read its OPEN");
  it->second.handle = ++last_handle_;
  changed_.insert(id);
  files_[last_handle_] = {id, std::nullopt};
  return last_handle_;
}

void CachefilesDevice::CloseObject(Handle handle) {
  const auto it = files_.find(handle);
  if (it == files_.end()) return;
  const ObjectId id = it->second.object;
  files_.erase(it);
  EndInstance(id);
  ForgetIfUnused();
}

void CachefilesDevice::EndInstance(ObjectId id) {
  instances_.erase(id);
  changed_.insert(id);
  if (is_attached_) (void)Execute(wire::CloseCommand{id});
}

const CachefilesDevice::Instance* CachefilesDevice::InstanceOf(Handle handle) const {
  const auto file = files_.find(handle);
  if (file == files_.end()) return nullptr;
  const auto instance = instances_.find(file->second.object);
  return instance == instances_.end() ? nullptr : &instance->second;
}

bool CachefilesDevice::Fill(ObjectId id, const Instance& instance, ByteRange range) {
  if (is_attached_) return Execute(wire::FilledCommand{id, range}) == 0;
  // The device was closed.  What its program goes on to write into the files that it still has
  // counts, as in the kernel.
  return cache_->device().AddPresence(instance.object, range).ok();
}

int64_t CachefilesDevice::WriteObject(Handle handle, pid_t caller, std::string_view bytes,
                                      uint64_t offset) {
  const Instance* instance = InstanceOf(handle);
  struct stat info;
  // Before its copen an object has no bytes.
  if (instance == nullptr || fstat(instance->file.get(), &info) != 0 || info.st_size == 0) {
    return -ENOBUFS;
  }
  OpenFile& file = files_.at(handle);
  const std::optional<Split> split = std::exchange(file.split, std::nullopt);
  if (split) changed_.insert(file.object);
  const bool goes_on = split && split->caller == caller && split->next == offset;
  if (offset % kPageSize != 0 && !goes_on) return -ENOBUFS;
  if (directory_->CheckSpace() != 0) {
    NoteTrouble("less is free on the file system of " + commands_.directory() +
                " than the limits fstop and bstop want; make room there, or cull");
    return -ENOBUFS;
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  // A write of whole pages may end in the page of the object's last byte.
  if (offset >= PageEnd(size)) return -ENOBUFS;
  const uint64_t taken = std::min<uint64_t>(bytes.size(), PageEnd(size) - offset);
  const uint64_t kept = offset < size ? std::min(taken, size - offset) : 0;
  int error = 0;
  const uint64_t written = WriteAll(instance->file.get(), bytes.substr(0, kept), offset, &error);
  if (error != 0) {
    NoteTrouble("the directory " + cache_->DataDirectory() + " takes no more bytes (" +
                std::strerror(error) + "); " + CureOf(error));
  } else if (kept > 0) {
    NoteTrouble("");
  }
  if (written == 0 && error != 0) return error == ENOSPC || error == EDQUOT ? -ENOBUFS : -error;
  const ByteRange filled{goes_on ? PageStart(offset) : offset, offset + written};
  if (!filled.empty() && !Fill(file.object, *instance, filled)) return -ENOBUFS;
  if (written < kept) return static_cast<int64_t>(written);
  if (taken == bytes.size() && taken + kPageSize > max_write_) {
    file.split = Split{caller, offset + taken};
    changed_.insert(file.object);
  }
  return static_cast<int64_t>(taken);
}

int CachefilesDevice::Complete(Handle handle, uint32_t msg_id) {
  const auto file = files_.find(handle);
  if (file == files_.end() || !is_attached_) return -EINVAL;
  return Execute(wire::CreadCommand{file->second.object, IdOf(msg_id), 0});
}

Result<uint64_t> CachefilesDevice::SizeOf(Handle handle) {
  const Instance* instance = InstanceOf(handle);
  struct stat info;
  if (instance == nullptr || !is_attached_ || fstat(instance->file.get(), &info) != 0 ||
      info.st_size == 0) {
    return Status(ENOBUFS, "the object has no bytes here");
  }
  return static_cast<uint64_t>(info.st_size);
}

Result<uint64_t> CachefilesDevice::Seek(Handle handle, uint64_t offset, int whence) {
  ASSIGN_OR_RETURN(const uint64_t size, SizeOf(handle));
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return Status(EINVAL, "lseek");
  if (offset >= size) return Status(ENXIO, "past the end");
  const Result<uint64_t> found =
      cache_->device().FindPresence(files_.at(handle).object, offset, whence == SEEK_DATA);
  if (!found.ok()) return Status(ENOBUFS, "the use of the object has ended");
  if (whence == SEEK_DATA && *found == size) {
    return Status(ENXIO, "only a hole follows");
  }
  return found;
}

}  // namespace fusefs
