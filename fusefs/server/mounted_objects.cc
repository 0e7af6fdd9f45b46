#include "fusefs/server/mounted_objects.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "cachecore/base/hex.h"
#include "cachecore/system/files.h"
#include "cachecore/system/mount_table.h"

namespace fusefs {

using cachecore::Duration;
using cachecore::MountEntry;
using cachecore::MutexLock;
using cachecore::PidStamp;
using cachecore::Result;
using cachecore::Status;

namespace {

constexpr char kMagic[] = "holdfast-mounted-1";
// Before a claim's time and its owner, in the place of a file system's number.
constexpr char kClaim[] = "claim:";
// For file systems that this mount namespace does not show, and claims.
constexpr std::chrono::seconds kSweepInterval(1);

void AddErofs(const std::vector<MountEntry>& table, std::set<std::string>* devices) {
  for (const MountEntry& entry : table) {
    if (entry.type == "erofs") devices->insert(entry.device);
  }
}

// Of `wanted`, those that are mounted, also in other mount namespaces.
Result<std::set<std::string>> LivingErofs(const std::set<std::string>& wanted) {
  std::set<std::string> living;
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, cachecore::ReadMountTable());
  AddErofs(table, &living);
  if (std::ranges::includes(living, wanted)) return living;
  for (const cachecore::ForeignTable& foreign : cachecore::ReadForeignTables()) {
    AddErofs(foreign.table, &living);
  }
  return living;
}

// Also one whose parent has not taken note of its end.
bool HasEnded(const PidStamp& process) {
  if (!IsThere(process)) return true;
  const cachecore::UniqueFd pinned(static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0)));
  pollfd ended = {pinned.get(), POLLIN, 0};
  return pinned.valid() ? poll(&ended, 1, 0) == 1 : errno == ESRCH;
}

std::string LineEnd(const GrantName& name) {
  return " " + cachecore::HexText(name.volume) + " " + cachecore::HexText(name.object) + "\n";
}

// "claim:UNTIL:PID:STARTED"
bool ParseClaim(const std::string& word, Duration* until, PidStamp* owner) {
  if (!word.starts_with(kClaim)) return false;
  std::istringstream text(word.substr(sizeof(kClaim) - 1));
  int64_t time = 0;
  char colon = 0;
  text >> time >> colon;
  *until = Duration(time);
  *owner = cachecore::ParsePidStamp(std::string(std::istreambuf_iterator<char>(text), {}));
  return true;
}

}  // namespace

MountedObjects::MountedObjects(std::string path, const cachecore::Clock& clock, bool resumed,
                               std::function<void(const GrantName&)> on_end,
                               std::function<bool(const GrantName&)> close)
    : path_(std::move(path)),
      clock_(clock),
      on_end_(std::move(on_end)),
      close_(std::move(close)),
      table_(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) {
  MutexLock lock(&mu_);
  if (resumed) Load();
}

bool MountedObjects::Has(const GrantName& name) {
  MutexLock lock(&mu_);
  SweepLocked();
  const auto it = uses_.find(name);
  return it != uses_.end() && !it->second.superblocks.empty();
}

std::string MountedObjects::PlaceOf(const GrantName& name) {
  const Result<std::vector<MountEntry>> table = cachecore::ReadMountTable();
  if (!table.ok()) return "";
  MutexLock lock(&mu_);
  const auto it = uses_.find(name);
  if (it == uses_.end()) return "";
  for (const MountEntry& entry : *table) {
    if (entry.type == "erofs" && it->second.superblocks.contains(entry.device)) {
      return entry.mount_point;
    }
  }
  return "";
}

void MountedObjects::Claim(const GrantName& name, Duration time, const PidStamp& owner) {
  MutexLock lock(&mu_);
  uses_[name].claims.push_back({owner, clock_.Now() + time});
  const Status saved = Save(uses_);
  LOG_IF(WARNING, !saved.ok()) << saved.message();
}

void MountedObjects::Release(const GrantName& name, const PidStamp& owner) {
  MutexLock lock(&mu_);
  EndClaim(&uses_[name], owner);
  SweepLocked();
}

void MountedObjects::EndClaim(Use* use, const PidStamp& owner) {
  const auto it = std::ranges::find_if(use->claims, [&owner](const OneClaim& claim) {
    return claim.owner.pid == owner.pid && claim.owner.started == owner.started;
  });
  if (it != use->claims.end()) use->claims.erase(it);
}

// Of those whose time is up, or whose process has ended.
bool MountedObjects::EndClaims(Use* use, Duration now) {
  return std::erase_if(use->claims, [now](const OneClaim& claim) {
           return claim.until <= now || (claim.owner.pid != 0 && HasEnded(claim.owner));
         }) > 0;
}

Status MountedObjects::Add(const std::string& superblock, const std::vector<GrantName>& names,
                           const PidStamp& owner) {
  MutexLock lock(&mu_);
  Uses next = uses_;
  // The number may be that of a file system which is gone.
  for (auto& [name, use] : next) use.superblocks.erase(superblock);
  for (const GrantName& name : names) {
    next[name].superblocks.insert(superblock);
    EndClaim(&next[name], owner);
  }
  RETURN_IF_ERROR(Save(next));
  uses_ = std::move(next);
  return Status();
}

void MountedObjects::Sweep() {
  MutexLock lock(&mu_);
  std::erase_if(closing_, close_);
  if (!uses_.empty() && MayHaveChanged()) SweepLocked();
}

bool MountedObjects::MayHaveChanged() {
  pollfd changed = {table_.get(), POLLPRI, 0};
  return poll(&changed, 1, 0) != 0 || clock_.Now() - swept_ >= kSweepInterval;
}

void MountedObjects::SweepLocked() {
  swept_ = clock_.Now();
  std::set<std::string> wanted;
  for (const auto& [name, use] : uses_) {
    wanted.insert(use.superblocks.begin(), use.superblocks.end());
  }
  const Result<std::set<std::string>> living = LivingErofs(wanted);
  if (!living.ok()) {
    LOG(ERROR) << living.status().message();
    return;
  }
  bool changed = false;
  for (auto it = uses_.begin(); it != uses_.end();) {
    Use& use = it->second;
    changed = std::erase_if(use.superblocks,
                            [&](const std::string& superblock) {
                              return !living->contains(superblock);
                            }) > 0 ||
              changed;
    changed = EndClaims(&use, swept_) || changed;
    if (!use.superblocks.empty() || !use.claims.empty()) {
      ++it;
      continue;
    }
    on_end_(it->first);
    if (!close_(it->first)) closing_.insert(it->first);
    it = uses_.erase(it);
  }
  if (!changed) return;
  const Status saved = Save(uses_);
  // The next daemon ends them once more, which changes nothing.
  LOG_IF(WARNING, !saved.ok()) << saved.message();
}

Status MountedObjects::Save(const Uses& uses) const {
  std::string text = std::string(kMagic) + "\n";
  for (const auto& [name, use] : uses) {
    for (const std::string& superblock : use.superblocks) {
      text += superblock + LineEnd(name);
    }
    for (const OneClaim& claim : use.claims) {
      text += std::string(kClaim) + std::to_string(claim.until.count()) + ":" +
              std::to_string(claim.owner.pid) + ":" + std::to_string(claim.owner.started) +
              LineEnd(name);
    }
  }
  return cachecore::WriteFileAtomically(path_, text, 0600);
}

void MountedObjects::Load() {
  std::ifstream file(path_);
  std::string magic, word, volume_hex, object_hex;
  if (!(file >> magic) || magic != kMagic) return;
  while (file >> word >> volume_hex >> object_hex) {
    const auto volume = cachecore::BytesOfHex(volume_hex);
    const auto object = cachecore::BytesOfHex(object_hex);
    if (!volume || !object) continue;
    Use& use = uses_[{*volume, *object}];
    OneClaim claim;
    if (ParseClaim(word, &claim.until, &claim.owner)) {
      use.claims.push_back(claim);
    } else {
      use.superblocks.insert(word);
    }
  }
}

}  // namespace fusefs
