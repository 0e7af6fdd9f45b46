// What a life of an instance leaves, and its removal.

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <iostream>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"
#include "cachecore/system/made_file.h"
#include "cachecore/system/mount_table.h"
#include "host/instance/settings.h"
#include "host/mounts/fuse_abort.h"
#include "host/mounts/fuse_release.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/own_mounts.h"
#include "host/service/instance_control.h"
#include "host/supervisor/supervise_fields.h"

namespace host {

using cachecore::ListDirectory;
using cachecore::MountEntry;
using cachecore::ReadJsonFile;
using cachecore::ReadMountTable;
using cachecore::RecordText;
using cachecore::RemoveAbandonedWrites;
using cachecore::Result;
using cachecore::Status;
using cachecore::WriteFileAtomically;

// Claims of other `holdfast mount`s stay: they wait for the lock.
std::vector<std::string> DetachMounts(const Instance& instance) {
  std::vector<std::string> detached;
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  if (!table.ok()) return detached;
  for (const MountEntry& entry : *table) {
    // First of all: a mount that is detached while pages of it are being read waits for them.
    if (entry.mount_point != instance.FuseDir() || !IsHoldfastFuse(entry)) continue;
    const Status aborted = AbortFuseConnection(entry);
    if (!aborted.ok()) std::cerr << "holdfast: " << aborted.message() << "\n";
  }
  const Result<std::vector<OwnMount>> mounts = ListMounts(instance);
  if (!mounts.ok()) return detached;
  std::vector<OwnMount> asked = *mounts;
  HideLayers(&asked);
  std::set<std::string> places;
  for (const OwnMount& mount : asked) places.insert(mount.record.mount_point);
  for (const OwnMount& mount : *mounts) {
    if (mount.state == MountState::kMounting) continue;
    const bool is_detached = mount.is_here && Detach(mount.entry);
    if (is_detached && places.contains(mount.record.mount_point)) {
      detached.push_back(mount.entry.mount_point);
    }
    RemoveMountRecord(instance, mount.record);
  }
  for (auto entry = table->rbegin(); entry != table->rend(); ++entry) {
    if (entry->mount_point == instance.FuseDir() && IsHoldfastFuse(*entry)) (void)Detach(*entry);
  }
  return detached;
}

void DetachLostMounts(const Instance& instance) {
  for (const std::string& mount_point : DetachMounts(instance)) {
    std::cerr << "holdfast: " << mount_point << " had lost its daemons and is no longer mounted\n";
  }
}

void DetachLostDevice(const Instance& instance, const std::string& given) {
  const std::string device = CachefilesDevice(instance);
  const cachecore::MadeFile made(cachecore::MadeFile::RecordIn(instance.RunDir()));
  // One of `holdfast supervise` or of systemd has its flags from elsewhere.
  for (const std::string& path : {device, made.Path(), given}) {
    while (!path.empty() && HasLostServer(path) && umount2(path.c_str(), MNT_DETACH) == 0) {
    }
  }
  made.Remove();
}

namespace {

// A supervisor that was killed has not left what it had counted.
void KeepTotals(const Instance& instance) {
  const Result<nlohmann::json> last = ReadJsonFile(instance.SuperviseStatus());
  if (!last.ok()) return;
  const Status kept = WriteFileAtomically(instance.SuperviseTotals(), RecordText(*last), 0600);
  if (kept.ok() || kept.error() == ENOENT) return;
  std::cerr << "holdfast: the counts of deaths are lost: " << kept.message() << "\n";
}

}  // namespace

// Clears what an earlier life left.  Pid files stay: by them the supervisor ends what still runs.
void CleanStart(const Instance& instance) {
  DetachLostMounts(instance);
  DetachLostDevice(instance);
  KeepTotals(instance);
  for (const std::string& stale :
       {instance.ControlSocket(), instance.DeviceSocket(), instance.SuperviseStatus(),
        instance.SuperviseFlags(), instance.SettingsFile()}) {
    unlink(stale.c_str());
  }
  for (const std::string& directory :
       {instance.MountsDir(), instance.SourcesDir(), instance.SavedMountsDir()}) {
    RemoveAbandonedWrites(directory);
  }
}

void ClearRunDirectory(const Instance& instance) {
  CleanStart(instance);
  const std::string sockets = instance.RunDir() + "/" + kNotifyDirectory;
  for (const std::string& directory : {sockets, instance.RunDir()}) {
    for (const std::string& name : ListDirectory(directory)) {
      unlink((directory + "/" + name).c_str());  // Fails on the directories, rightly.
    }
  }
  ReleaseUnusedLayers(instance);
  // A directory that still has something in it, such as another mount's claim, stays.
  rmdir(instance.FuseDir().c_str());
  rmdir(sockets.c_str());
  const bool is_empty = rmdir(instance.MountsDir().c_str()) == 0 || errno == ENOENT;
  if (is_empty) rmdir(instance.RunDir().c_str());
}

void RemoveState(const Instance& instance) {
  std::error_code error;
  std::filesystem::remove_all(instance.StateDir(), error);
  if (error)
    std::cerr << "holdfast: removing " << instance.StateDir() << ": " << error.message() << "\n";
}

}  // namespace host
