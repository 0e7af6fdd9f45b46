#include "fusefs/cachefiles/cache_directory.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include "cachecore/values/names.h"
#include "fusefs/cachefiles/backing_name.h"

namespace fusefs {

using cachecore::MutexLock;
using cachecore::ObjectInfo;
using cachecore::ObjectNumber;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr uint64_t kFileUnit = 4096;
constexpr unsigned kParts = 100;
constexpr char kCoherencyAttribute[] = "user.CacheFiles.cache";
constexpr char kCache[] = "cache";
constexpr char kGraveyard[] = "graveyard";
constexpr char kWasDeleted[] = "its file was deleted from the cachefiles client's directory";
constexpr int kMaxDepth = 2048;  // Of directories in a path: PATH_MAX allows no more.
constexpr int kBurialTries = 1000;

UniqueFd OpenDirectoryAt(int directory, const char* name) {
  return UniqueFd(openat(directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
}

// Made if need be.
UniqueFd ObtainDirectoryAt(int directory, const char* name) {
  if (mkdirat(directory, name, 0700) != 0 && errno != EEXIST) return UniqueFd();
  return OpenDirectoryAt(directory, name);
}

// What the kernel wants of the directory of a cache.
int CheckDirectory(int directory) {
  struct statvfs info;
  if (fstatvfs(directory, &info) != 0) return -errno;
  if (info.f_bsize > kFileUnit) return -EOPNOTSUPP;
  if ((info.f_flag & ST_RDONLY) != 0) return -EROFS;
  if (fgetxattr(directory, kCoherencyAttribute, nullptr, 0) < 0 && errno != ENODATA) {
    return -EOPNOTSUPP;
  }
  const UniqueFd temporary(openat(directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  return temporary.valid() ? 0 : -EOPNOTSUPP;
}

// On the file system of `directory`: EXDEV where something is mounted.  The file system that is
// mounted there may need the device thread for its answer, as the device itself does.
UniqueFd OpenHereAt(int directory, const char* name, int flags,
                    uint64_t resolve = RESOLVE_NO_XDEV) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
  how.resolve = resolve;
  return UniqueFd(static_cast<int>(syscall(SYS_openat2, directory, name, &how, sizeof(how))));
}

// Not waiting, as for a FIFO of that name.
UniqueFd OpenFileAt(int directory, const char* name) {
  return OpenHereAt(directory, name, O_RDONLY | O_NONBLOCK);
}

bool IsSameDirectory(int a, int b) {
  struct stat first;
  struct stat second;
  return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

// Whether `here` is the directory `top` or below it.  `resolve`: 0 to look beyond the file system too.
bool IsBelow(int here, int top, uint64_t resolve = RESOLVE_NO_XDEV) {
  UniqueFd at = OpenHereAt(here, ".", O_PATH, resolve);
  for (int depth = 0; at.valid() && depth < kMaxDepth; ++depth) {
    if (IsSameDirectory(at.get(), top)) return true;
    UniqueFd above = OpenHereAt(at.get(), "..", O_PATH, resolve);
    if (above.valid() && IsSameDirectory(above.get(), at.get())) return false;  // The root.
    at = std::move(above);
  }
  return false;
}

// A file that is open, on the mount that `directory` is open on.  A client with a mount namespace of its
// own reaches the same file system by another mount, and linkat(2) and renameat(2) give EXDEV for two.
UniqueFd OpenOnMountOf(int directory, int file, int flags) {
  struct {
    file_handle handle;
    unsigned char bytes[MAX_HANDLE_SZ];
  } of_file;
  int mount = 0;
  of_file.handle.handle_bytes = MAX_HANDLE_SZ;
  struct stat wanted;
  struct stat found;
  if (name_to_handle_at(file, "", &of_file.handle, &mount, AT_EMPTY_PATH) == 0) {
    UniqueFd opened(open_by_handle_at(directory, &of_file.handle, flags | O_CLOEXEC));
    const bool is_it = opened.valid() && fstat(file, &wanted) == 0 &&
                       fstat(opened.get(), &found) == 0 && wanted.st_dev == found.st_dev &&
                       wanted.st_ino == found.st_ino;
    if (is_it) return opened;
  }
  errno = EXDEV;
  return UniqueFd();
}

bool LinkOnMountOf(int directory, const UniqueFd& data, const char* name) {
  const UniqueFd file = OpenOnMountOf(directory, data.get(), O_PATH);
  return file.valid() && linkat(file.get(), "", directory, name, AT_EMPTY_PATH) == 0;
}

bool RenameOnMountOf(int directory, int here, const char* name, const char* new_name) {
  const UniqueFd ours = OpenOnMountOf(directory, here, O_RDONLY | O_DIRECTORY);
  return ours.valid() && renameat(ours.get(), name, directory, new_name) == 0;
}

std::string LastNameOf(int directory) {
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(directory);
  const ssize_t size = readlink(link.c_str(), path, sizeof(path));
  const std::string_view text(path, size < 0 ? 0 : static_cast<size_t>(size));
  return std::string(text.substr(text.rfind('/') + 1));
}

}  // namespace

// -ENOENT, -EBUSY for a mount, or -EIO.
int CacheDirectory::LookUp(int here, const std::string& name, Named* found) {
  found->file = OpenHereAt(here, name.c_str(), O_PATH);
  struct stat info;
  if (!found->file.valid() || fstat(found->file.get(), &info) != 0) {
    if (errno == EXDEV) return -EBUSY;
    return errno == ENOENT ? -ENOENT : -EIO;
  }
  found->is_directory = S_ISDIR(info.st_mode);
  if (S_ISREG(info.st_mode)) {
    const UniqueFd opened(open(("/proc/self/fd/" + std::to_string(found->file.get())).c_str(),
                               O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    // It may be an object's that is used.
    if (!opened.valid()) return -EIO;
    const Result<ObjectNumber> number = ReadNumber(opened.get());
    if (!number.ok()) return -EIO;
    found->number = *number;
  }
  return 0;
}

bool CacheDirectory::IsStill(int here, const std::string& name, const Named& found) {
  struct stat now;
  struct stat before;
  return fstatat(here, name.c_str(), &now, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0 &&
         fstat(found.file.get(), &before) == 0 && now.st_dev == before.st_dev &&
         now.st_ino == before.st_ino;
}

CacheDirectory::Limits CacheDirectory::PartsOf(uint64_t all, const CullLimits& percent) {
  const uint64_t part = all / kParts;
  return {part * percent.run, part * percent.cull, part * percent.stop};
}

CacheDirectory::BoundPtr CacheDirectory::bound() {
  MutexLock lock(&mu_);
  return bound_;
}

CacheDirectory::BoundPtr CacheDirectory::Measured(UniqueFd directory, const struct statvfs& info,
                                                  const CullLimits& files,
                                                  const CullLimits& blocks) {
  return std::make_shared<const Bound>(
      Bound{std::move(directory), PartsOf(info.f_files, files), PartsOf(info.f_blocks, blocks)});
}

void CacheDirectory::Resume(UniqueFd directory, const CullLimits& files, const CullLimits& blocks) {
  struct statvfs info;
  if (fstatvfs(directory.get(), &info) != 0) {
    PLOG(ERROR) << "the directory that the cachefiles device is bound to cannot be looked at";
    return;
  }
  {
    MutexLock lock(&mu_);
    bound_ = Measured(std::move(directory), info, files, blocks);
  }
  (void)CheckSpace();
}

int CacheDirectory::Bind(UniqueFd directory, const CullLimits& files, const CullLimits& blocks) {
  if (const int result = CheckDirectory(directory.get()); result != 0) return result;
  if (flock(directory.get(), LOCK_EX | LOCK_NB) != 0) return -EBUSY;
  struct statvfs info;
  if (fstatvfs(directory.get(), &info) != 0) return -errno;
  for (const char* name : {kCache, kGraveyard}) {
    if (!ObtainDirectoryAt(directory.get(), name).valid()) return -errno;
  }
  // A `cull` of the client would remove our own files.
  const UniqueFd own(open((cache_->DataDirectory() + "/..").c_str(), O_PATH | O_CLOEXEC));
  const UniqueFd cache = OpenDirectoryAt(directory.get(), kCache);
  if (!own.valid() || !cache.valid()) return -errno;
  if (IsBelow(own.get(), cache.get(), /*resolve=*/0)) return -EBUSY;
  const BoundPtr bound = Measured(std::move(directory), info, files, blocks);
  released_ = 0;
  released_blocks_ = 0;
  CommitAll(*bound);
  {
    MutexLock lock(&mu_);
    bound_ = bound;
  }
  (void)CheckSpace();
  return 0;
}

void CacheDirectory::Unbind() {
  const BoundPtr bound = this->bound();
  if (bound == nullptr) return;
  CommitAll(*bound);
  // The fd store may have the same open file for a moment longer.
  flock(bound->directory.get(), LOCK_UN);
  MutexLock lock(&mu_);
  bound_.reset();
  is_culling_ = false;
  has_changed_ = false;
}

int CacheDirectory::CheckSpace() {
  const BoundPtr bound = this->bound();
  struct statvfs info;
  if (bound == nullptr || fstatvfs(bound->directory.get(), &info) != 0) return 0;
  const Limits& files = bound->files;
  const Limits& blocks = bound->blocks;
  const bool is_short = info.f_ffree < files.cull || info.f_bavail < blocks.cull;
  const bool is_ample = info.f_ffree >= files.run && info.f_bavail >= blocks.run;
  if (is_short || is_ample) NoteCulling(is_short);
  return info.f_ffree < files.stop || info.f_bavail < blocks.stop ? -ENOBUFS : 0;
}

void CacheDirectory::NoteCulling(bool is_wanted) {
  if (is_culling_.exchange(is_wanted) == is_wanted) return;
  LOG(INFO) << "the cachefiles client is " << (is_wanted ? "" : "no longer ") << "asked to cull";
  has_changed_ = true;
  on_culling_();
}

bool CacheDirectory::IsOnItsFileSystem(dev_t device) {
  const BoundPtr bound = this->bound();
  struct stat info;
  return bound != nullptr && fstat(bound->directory.get(), &info) == 0 && info.st_dev == device;
}

std::string CacheDirectory::StatusLine() {
  (void)CheckSpace();
  const BoundPtr bound = this->bound();
  if (bound == nullptr) return "";
  has_changed_ = false;
  char line[256];
  std::snprintf(line, sizeof(line),
                "cull=%d frun=%lx fcull=%lx fstop=%lx brun=%lx bcull=%lx bstop=%lx freleased=%x "
                "breleased=%lx",
                is_culling_ ? 1 : 0, bound->files.run, bound->files.cull, bound->files.stop,
                bound->blocks.run, bound->blocks.cull, bound->blocks.stop, released_.exchange(0),
                released_blocks_.exchange(0));
  return line;
}

void CacheDirectory::Commit(const GrantName& name) {
  const BoundPtr bound = this->bound();
  if (bound == nullptr) return;
  const Result<std::optional<ObjectInfo>> known = cache_->Find(name.volume, name.object);
  if (!known.ok() || !known->has_value()) return;
  uint64_t blocks = 0;
  {
    MutexLock changing(&change_mu_);
    // As in the kernel, a file that is new counts from its next use on.
    if (!CommitTo(*bound, name, (*known)->number, &blocks)) return;
  }
  ++released_;
  released_blocks_ += blocks;
  has_changed_ = true;
  on_culling_();
}

void CacheDirectory::CommitAll(const Bound& bound) {
  std::vector<std::pair<GrantName, ObjectNumber>> objects;
  const Status scanned = cache_->ScanVolumes([&](const cachecore::VolumeRecord& volume) {
    const auto add = [&](const cachecore::ObjectRecord& object) {
      objects.push_back({{volume.key, object.cookie}, object.number});
      return true;
    };
    return cache_->ScanObjects(volume.number, add).ok();
  });
  LOG_IF(ERROR, !scanned.ok()) << scanned.message();
  for (const auto& [name, number] : objects) {
    MutexLock changing(&change_mu_);
    uint64_t blocks = 0;
    // What has just got its name was not deleted.
    if (CommitTo(bound, name, number, &blocks)) DropIfDeleted(bound, name, number);
  }
}

// A name that was deleted frees no space while the data file has another.
void CacheDirectory::DropIfDeleted(const Bound& bound, const GrantName& name, ObjectNumber number) {
  const UniqueFd file(open(cache_->PathOfData(number).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat data;
  struct stat directory;
  if (!file.valid() || NumberOf(file.get()) != number || fstat(file.get(), &data) != 0 ||
      fstat(bound.directory.get(), &directory) != 0 || data.st_dev != directory.st_dev ||
      data.st_nlink > 1 || HasName(bound, name, number) || IsUsed(number)) {
    return;
  }
  const Status dropped = cache_->Drop(number, kWasDeleted);
  LOG_IF(ERROR, !dropped.ok()) << dropped.message();
}

bool CacheDirectory::CommitTo(const Bound& bound, const GrantName& object, ObjectNumber number,
                              uint64_t* blocks) {
  const std::string path = cache_->PathOfData(number);
  const UniqueFd data(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat info;
  if (!data.valid() || fstat(data.get(), &info) != 0) return false;
  *blocks = static_cast<uint64_t>(info.st_blocks);
  if (NumberOf(data.get()) == number) return true;
  const BackingName name = BackingNameOf(object.volume, object.object);
  const UniqueFd cache = ObtainDirectoryAt(bound.directory.get(), kCache);
  const UniqueFd of_volume = ObtainDirectoryAt(cache.get(), name.volume.c_str());
  const UniqueFd fan_out = ObtainDirectoryAt(of_volume.get(), name.fan_out.c_str());
  // What has the name is of an object that was dropped.
  unlinkat(fan_out.get(), name.file.c_str(), 0);
  bool is_made = linkat(AT_FDCWD, path.c_str(), fan_out.get(), name.file.c_str(), 0) == 0 ||
                 (errno == EXDEV && LinkOnMountOf(fan_out.get(), data, name.file.c_str()));
  if (!is_made && errno == EXDEV) {
    const UniqueFd file(openat(fan_out.get(), name.file.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    const uint64_t size = (static_cast<uint64_t>(info.st_size) + kFileUnit - 1) / kFileUnit;
    is_made = file.valid() && ftruncate(file.get(), static_cast<off_t>(size * kFileUnit)) == 0 &&
              SetNumber(file.get(), number);
  }
  if (is_made && SetNumber(data.get(), number)) return false;
  cache_->log().Error("object " + object.volume + "/" + object.object +
                      " has no name in the client's directory: " + std::strerror(errno));
  return false;
}

bool CacheDirectory::IsUsed(ObjectNumber number) {
  const Grants* const grants = grants_;
  const Result<ObjectInfo> info = cache_->Stat(number);
  if (!info.ok()) return false;
  const GrantName name{info->volume_key, info->cookie_key};
  {
    MutexLock lock(&mu_);
    if (admitted_.contains(name)) return true;
  }
  return grants == nullptr || info->is_acquired || grants->Has(name);
}

bool CacheDirectory::IsAnyUsed() {
  const Grants* const grants = grants_;
  if (grants == nullptr) return true;
  if (sweep_) sweep_();
  return grants->HasAny();
}

bool CacheDirectory::HasName(const Bound& bound, const GrantName& name, ObjectNumber number) {
  const BackingName place = BackingNameOf(name.volume, name.object);
  const std::string path =
      std::string(kCache) + "/" + place.volume + "/" + place.fan_out + "/" + place.file;
  const UniqueFd file = OpenFileAt(bound.directory.get(), path.c_str());
  if (!file.valid()) return errno != ENOENT;
  const Result<ObjectNumber> found = ReadNumber(file.get());
  return !found.ok() || *found == number;
}

Status CacheDirectory::Admit(const GrantName& name) {
  {
    MutexLock changing(&change_mu_);  // What is culled now is gone when it is looked for.
    MutexLock lock(&mu_);
    admitted_.insert(name);
  }
  const Status dropped = DropDeleted(name);
  if (!dropped.ok()) Admitted(name);
  return dropped;
}

void CacheDirectory::Admitted(const GrantName& name) {
  MutexLock lock(&mu_);
  const auto it = admitted_.find(name);
  if (it != admitted_.end()) admitted_.erase(it);
}

Status CacheDirectory::DropDeleted(const GrantName& name) {
  const BoundPtr bound = this->bound();
  const Grants* const grants = grants_;
  if (bound == nullptr || (grants != nullptr && grants->Has(name))) return Status();
  if (CheckSpace() != 0) {
    return Status(ENOBUFS, "the cachefiles client's directory has less room than its limits want");
  }
  const Result<std::optional<ObjectInfo>> known = cache_->Find(name.volume, name.object);
  if (!known.ok() || !known->has_value()) return Status();
  const ObjectNumber number = (*known)->number;
  const UniqueFd data(open(cache_->PathOfData(number).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!data.valid() || NumberOf(data.get()) != number) return Status();
  if (HasName(*bound, name, number)) return Status();
  return cache_->Drop(number, kWasDeleted);
}

bool CacheDirectory::IsDirectoryUsed(const Bound& bound, int here, const std::string& name) {
  if (IsSameDirectory(here, bound.directory.get())) return name == kCache || name == kGraveyard;
  const std::string volume = name.starts_with('@') ? LastNameOf(here) : name;
  if (!volume.starts_with('I')) return false;
  const std::string key = volume.substr(1);
  {
    MutexLock lock(&mu_);
    const auto first = admitted_.lower_bound({key, ""});
    if (first != admitted_.end() && first->volume == key) return true;
  }
  const Grants* const grants = grants_;
  return grants == nullptr || grants->HasVolume(key);
}

int CacheDirectory::LookUpUnused(const Bound& bound, int here, const std::string& name,
                                 Named* found) {
  if (cachecore::IsDotName(name) || name.empty()) return -EIO;
  if (const int result = LookUp(here, name, found); result != 0) return result;
  const bool is_used = found->is_directory ? IsDirectoryUsed(bound, here, name)
                                           : found->number.value != 0 && IsUsed(found->number);
  return is_used ? -EBUSY : 0;
}

int CacheDirectory::InUse(int here, const std::string& name) {
  const BoundPtr bound = this->bound();
  if (bound == nullptr) return -EIO;
  MutexLock changing(&change_mu_);
  Named found;
  return LookUpUnused(*bound, here, name, &found);
}

bool CacheDirectory::Bury(const Bound& bound, int here, const std::string& name) {
  const UniqueFd graveyard = ObtainDirectoryAt(bound.directory.get(), kGraveyard);
  // An earlier daemon, or one before a step of the clock, may have given the same name.
  for (int tries = 0; tries < kBurialTries; ++tries) {
    char buried[32];
    std::snprintf(buried, sizeof(buried), "%08x%08x", static_cast<unsigned>(std::time(nullptr)),
                  static_cast<unsigned>(++buried_));
    if (faccessat(graveyard.get(), buried, F_OK, AT_SYMLINK_NOFOLLOW) == 0) continue;
    if (renameat(here, name.c_str(), graveyard.get(), buried) == 0) return true;
    return errno == EXDEV && RenameOnMountOf(graveyard.get(), here, name.c_str(), buried);
  }
  return false;
}

int CacheDirectory::Cull(int here, const std::string& name) {
  const BoundPtr bound = this->bound();
  if (bound == nullptr) return -EIO;
  MutexLock changing(&change_mu_);
  Named found;
  if (const int result = LookUpUnused(*bound, here, name, &found); result != 0) return result;
  // Nothing outside the cache is removed, whatever the client's working directory is.
  if (!IsBelow(here, ObtainDirectoryAt(bound->directory.get(), kCache).get())) return -EIO;
  // Another program has put something else there.
  if (!IsStill(here, name, found)) return -EBUSY;
  if (found.is_directory) {
    return Bury(*bound, here, name) ? 0 : -EIO;
  }
  if (unlinkat(here, name.c_str(), 0) != 0) return errno == ENOENT ? -ENOENT : -EIO;
  if (found.number.value == 0) return 0;
  const Status dropped = cache_->Drop(found.number, "culled by the cachefiles client");
  LOG_IF(ERROR, !dropped.ok()) << dropped.message();
  return dropped.ok() ? 0 : -EIO;
}

}  // namespace fusefs
