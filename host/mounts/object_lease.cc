#include "host/mounts/object_lease.h"

#include <chrono>

#include "cachecore/base/deadline.h"
#include "cachecore/protocol/control_messages.h"
#include "host/instance/control_client.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::control::Operation;

constexpr std::chrono::milliseconds kReleaseTime{2000};

}  // namespace

void ReleaseObject(const Instance& instance, const MountRecord& record,
                   const std::vector<MountRecord>& mounts) {
  if (record.object.empty()) return;  // An overlay's: each of its layers has one.
  for (const MountRecord& mount : mounts) {
    if (mount.mount_point != record.mount_point && mount.volume == record.volume &&
        mount.object == record.object) {
      return;
    }
  }
  const nlohmann::json question = cachecore::control::EncodeRequest(
      {.operation = Operation::kRelease, .volume = record.volume, .object = record.object});
  CallControl(instance.ControlSocket(), question, Deadline(kReleaseTime))
      .IgnoreError("a loan that stays only lets the object be found");
}

}  // namespace host
