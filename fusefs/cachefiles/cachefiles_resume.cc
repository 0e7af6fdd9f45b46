// CachefilesDevice's part in going on under the next daemon.

#include <glog/logging.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "cachecore/base/parse_text.h"
#include "cachecore/system/files.h"
#include "fusefs/cachefiles/cachefiles_device.h"

namespace fusefs {

using cachecore::Generation;
using cachecore::KeptObject;
using cachecore::MsgId;
using cachecore::ObjectId;
using cachecore::ObjectNumber;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

void CachefilesDevice::DropEnded() {
  for (const MsgId id : cache_->device().TakeEnded()) memory_->EraseRequest(id);
}

InstanceRecord CachefilesDevice::RecordOf(ObjectId id, const Instance& instance) const {
  InstanceRecord record;
  record.object = instance.object.value;
  record.handle = instance.handle;
  record.id = id.value;
  record.open_msg_id = instance.msg_id.value;
  record.reader = instance.reader;
  record.is_live = is_attached_ && cache_->device().IsLive(id) ? 1 : 0;
  const auto file = files_.find(instance.handle);
  if (file != files_.end() && file->second.split) {
    record.split_caller = file->second.split->caller;
    record.split_next = file->second.split->next;
  }
  return record;
}

uint32_t CachefilesDevice::MarkOf(int directory) {
  struct stat info = {};
  (void)fstat(directory, &info);
  const uint64_t mixed = (info.st_ino ^ (uint64_t{info.st_dev} << 32)) * 0x9e3779b97f4a7c15;
  return static_cast<uint32_t>(mixed >> 32) | 1;
}

uint32_t CachefilesDevice::ReadMark() const {
  const Result<std::string> text = cachecore::ReadFile(mark_file_);
  const Result<uint64_t> mark = cachecore::ParseSize(text.ok() ? *text : "");
  return mark.ok() ? static_cast<uint32_t>(*mark) : 0;
}

bool CachefilesDevice::KeepMark(uint32_t mark) {
  if (last_directory_ == mark) return true;
  const Status kept = cachecore::WriteFileAtomically(mark_file_, std::to_string(mark), 0600);
  if (!kept.ok()) LogError("the directory that is bound cannot be kept: " + kept.message());
  if (kept.ok()) last_directory_ = mark;
  return kept.ok();
}

void CachefilesDevice::Keep() {
  DeviceRecord device;
  device.last_handle = last_handle_;
  device.is_open = is_open_ ? 1 : 0;
  device.is_attached = is_attached_ ? 1 : 0;
  device.is_dead = is_dead_ ? 1 : 0;
  device.last_msg_id = last_msg_id_.value;
  device.client = client_;
  memory_->PutDevice(device);
  memory_->PutTrouble(trouble_);
  if (std::exchange(commands_changed_, false)) memory_->PutCommands(commands_.Text());
  for (const ObjectId id : std::exchange(changed_, {})) {
    const auto it = instances_.find(id);
    if (it == instances_.end()) {
      memory_->EraseInstance(id);
    } else {
      memory_->PutInstance(RecordOf(id, it->second));
    }
  }
  DropEnded();
}

Status CachefilesDevice::Resume(UniqueFd directory) {
  const DeviceRecord device = memory_->device();
  is_open_ = device.is_open != 0;
  is_attached_ = device.is_attached != 0;
  is_dead_ = device.is_dead != 0;
  last_handle_ = device.last_handle;
  last_msg_id_ = {device.last_msg_id};
  if (!commands_.SetText(memory_->commands())) {
    return Status(EPROTO, "the kept commands of the cachefiles device are damaged");
  }
  client_ = device.client;
  trouble_ = memory_->trouble();
  ++revision_;
  if (commands_.is_bound()) {
    // Of a daemon that did not keep it.
    if (last_directory_ == 0 && directory.valid()) (void)KeepMark(MarkOf(directory.get()));
    directory_->Resume(std::move(directory), commands_.file_limits(), commands_.block_limits());
  } else {
    // The `bind` was not answered, and comes again: the store's copy of the open file, which may be
    // there a moment longer, must not have the lock.
    if (directory.valid()) flock(directory.get(), LOCK_UN);
    store_->Remove(kStoredDirectory);
  }
  std::map<uint64_t, KeptObject> objects;
  for (KeptObject& object : memory_->requests()) objects[object.number.value] = std::move(object);
  for (const InstanceRecord& record : memory_->instances()) {
    const ObjectId id = {record.id};
    const ObjectNumber number = {record.object};
    instances_[id] = {UniqueFd(), number, {record.open_msg_id}, record.reader, record.handle};
    if (record.handle != 0) files_[record.handle].object = id;
    if (record.split_caller != 0) {
      files_[record.handle].split = Split{record.split_caller, record.split_next};
    }
    if (record.is_live == 0) continue;
    objects[record.object].number = number;
    objects[record.object].live = id;
  }
  if (is_attached_) {
    std::vector<KeptObject> kept;
    for (auto& [number, object] : objects) kept.push_back(std::move(object));
    ASSIGN_OR_RETURN(const Generation generation, cache_->device().ResumeDevice(kept));
    LOG(INFO) << "the cachefiles daemon goes on, generation " << generation.value << ", "
              << instances_.size() << " open objects";
  } else if (is_dead_) {
    cache_->device().Detach();
  }
  for (auto& [id, instance] : instances_) {
    Result<UniqueFd> file = cache_->device().OpenDataFile(instance.object);
    LOG_IF(WARNING, !file.ok()) << "an object of the cachefiles daemon takes no more writes: "
                                << file.status().message();
    if (file.ok()) instance.file = std::move(file).value();
  }
  return Status();
}

}  // namespace fusefs
