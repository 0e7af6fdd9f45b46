#include "cli/object_lease.h"

#include <chrono>

#include "cli/control_client.h"
#include "cli/deadline.h"

namespace cli {
namespace {

// A daemon that has just died is back long before.
constexpr std::chrono::milliseconds kAnswerTime{10000};
constexpr std::chrono::milliseconds kReleaseTime{2000};

}  // namespace

cachecore::Status KeepObject(const Instance& instance, const MountRecord& record) {
  return CallControl(instance.ControlSocket(),
                     {{"op", "keep"}, {"volume", record.volume}, {"object", record.object}},
                     Deadline(kAnswerTime))
      .status();
}

void ReleaseObject(const Instance& instance, const MountRecord& record,
                   const std::vector<MountRecord>& mounts) {
  for (const MountRecord& mount : mounts) {
    if (mount.mount_point != record.mount_point && mount.volume == record.volume &&
        mount.object == record.object) {
      return;
    }
  }
  (void)CallControl(instance.ControlSocket(),
                    {{"op", "release"}, {"volume", record.volume}, {"object", record.object}},
                    Deadline(kReleaseTime))
      .ok();
}

}  // namespace cli
