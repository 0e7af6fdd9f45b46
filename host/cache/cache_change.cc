#include "host/cache/cache_change.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <set>

#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "host/mount/persistent_request.h"
#include "host/mounts/detached_mounts.h"
#include "host/mounts/object_lease.h"
#include "host/mounts/own_mounts.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

namespace control = cachecore::control;
using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;
using control::Operation;
using control::Request;
using nlohmann::json;

Result<json> Ask(const Instance& instance, const Request& request, const Deadline& deadline) {
  const json question = control::EncodeRequest(request);
  const Result<json> answer = AskPersistently(
      instance, [&](std::chrono::milliseconds) { return question; }, deadline);
  if (!answer.ok()) return WhyUnasked(instance, answer.status());
  return answer;
}

// The mounts by which the object was shown until they were detached.
std::vector<MountRecord> DetachedMounts(const Instance& instance, const CachedObject& object) {
  const Result<std::vector<cachecore::MountEntry>> table = cachecore::ReadMountTable();
  if (!table.ok()) return {};
  std::vector<MountRecord> mounts = ListDetached(instance, FuseDevice(instance, *table));
  std::erase_if(mounts, [&object](const MountRecord& record) {
    return record.volume != object.volume || record.object != object.object ||
           record.superblock.empty();
  });
  return mounts;
}

// What uses them still; "" for nothing.
std::string DescribeUsersOf(const Instance& instance, const std::vector<MountRecord>& mounts) {
  for (const MountRecord& record : mounts) {
    std::string users = DescribeUsersOfDetached(instance, record);
    if (!users.empty()) return users;
  }
  return "";
}

Status CheckIsUnused(const Instance& instance, const CachedObject& object) {
  const std::string bytes = "drop its cached bytes alone: holdfast cache rm --bytes" +
                            instance.Flags() + " " + object.Name();
  if (!object.mount_points.empty()) {
    return Status(EBUSY, object.Name() + " is mounted at " + object.mount_points.front() +
                             ": unmount it, or " + bytes);
  }
  if (!object.is_granted) return Status();
  const std::string users = DescribeUsersOf(instance, DetachedMounts(instance, object));
  if (users.empty()) {
    return Status(EBUSY, object.Name() + " is being mounted or unmounted: try again, or " + bytes);
  }
  return Status(EBUSY,
                object.Name() + " was unmounted and is " + users + ": end that, or " + bytes);
}

Status RemoveOne(const Instance& instance, const RemoveOptions& options, const Deadline& deadline,
                 Removal* removal) {
  const CachedObject& object = removal->object;
  if (!options.bytes_only) RETURN_IF_ERROR(CheckIsUnused(instance, object));
  const Result<json> answer = Ask(instance,
                                  {.operation = Operation::kRemove,
                                   .volume = object.volume,
                                   .object = object.object,
                                   .bytes_only = options.bytes_only,
                                   .unless_pinned = options.unless_pinned},
                                  deadline);
  // It was listed: a daemon has removed it, and has died before it could say so.
  if (answer.status().error() == ENOENT && !options.bytes_only) {
    removal->removed_bytes = object.allocated_bytes;
    return Status();
  }
  RETURN_IF_ERROR(Status(answer.status()));
  const control::RemoveAnswer removed = control::DecodeRemove(*answer);
  removal->removed_bytes = removed.removed_bytes;
  removal->left_bytes = removed.left_bytes;
  return Status();
}

// Those of volumes that have lost their last object, and that no mount is for.
void RemoveSources(const Instance& instance, std::set<std::string> volumes,
                   const Deadline& deadline) {
  const Result<CacheList> list = AskCacheList(instance, deadline);
  if (!list.ok()) {
    std::cerr << "holdfast: source files stay: " << list.status().message() << "\n";
    return;
  }
  for (const CachedObject& object : list->objects) volumes.erase(object.volume);
  for (const MountRecord& record : ListMountRecords(instance)) volumes.erase(record.volume);
  for (const std::string& volume : volumes) unlink(instance.SourceFile(volume).c_str());
}

}  // namespace

Result<json> ChangeLimits(const Instance& instance, const std::string& max,
                          const std::string& min_free, const Deadline& deadline) {
  ASSIGN_OR_RETURN(
      const json answer,
      Ask(instance, {.operation = Operation::kLimit, .max = max, .min_free = min_free}, deadline));
  return cachecore::JsonField(answer, control::field::kCache);
}

Status SetPinned(const Instance& instance, const CachedObject& object, bool pinned,
                 const Deadline& deadline) {
  return Status(Ask(instance,
                    {.operation = pinned ? Operation::kPin : Operation::kUnpin,
                     .volume = object.volume,
                     .object = object.object},
                    deadline)
                    .status());
}

void ReleaseUnused(const Instance& instance, CacheList* list) {
  for (CachedObject& object : list->objects) {
    if (!object.is_granted || !object.mount_points.empty()) continue;
    const std::vector<MountRecord> mounts = DetachedMounts(instance, object);
    if (mounts.empty() || !DescribeUsersOf(instance, mounts).empty()) continue;
    MountRecord record;
    record.volume = object.volume;
    record.object = object.object;
    ReleaseObject(instance, record, {});
    object.is_granted = false;
  }
}

std::vector<Removal> RemoveObjects(const Instance& instance,
                                   const std::vector<CachedObject>& objects,
                                   const RemoveOptions& options, const Deadline& deadline) {
  std::vector<Removal> removals;
  std::set<std::string> volumes;
  for (const CachedObject& object : objects) {
    removals.push_back({object, Status()});
    removals.back().status = RemoveOne(instance, options, deadline, &removals.back());
    if (removals.back().status.ok() && !options.bytes_only) volumes.insert(object.volume);
  }
  if (!volumes.empty()) RemoveSources(instance, std::move(volumes), deadline);
  return removals;
}

}  // namespace host
