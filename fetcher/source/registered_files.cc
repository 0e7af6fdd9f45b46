#include "fetcher/source/registered_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "cachecore/system/pinned_file.h"

namespace fetcher {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr std::string_view kSourceSuffix = ".json";

// Root's, or this user's if it is not root, and no other user may change it.
Status CheckOwner(const UniqueFd& fd, mode_t type, const std::string& path) {
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return Status::FromErrno(errno, path);
  const bool owned = info.st_uid == 0 || info.st_uid == geteuid();
  if (owned && (info.st_mode & S_IFMT) == type && (info.st_mode & 022) == 0) return Status();
  return Status(EPERM, path + " names no sources: it must be root's, and no other user's to write");
}

}  // namespace

Result<UniqueFd> RegisteredFiles::OpenSourcesDir() const {
  UniqueFd directory(open(sources_dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return Status::FromErrno(errno, sources_dir_);
  RETURN_IF_ERROR(CheckOwner(directory, S_IFDIR, sources_dir_));
  return directory;
}

Result<UniqueFd> RegisteredFiles::OpenSourceIn(const UniqueFd& directory,
                                               const std::string& name) const {
  const std::string path = sources_dir_ + "/" + name;
  UniqueFd file(
      openat(directory.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return Status::FromErrno(errno, path);
  RETURN_IF_ERROR(CheckOwner(file, S_IFREG, path));
  return file;
}

Result<UniqueFd> RegisteredFiles::OpenSource(const std::string& volume) const {
  RETURN_IF_ERROR(CheckVolumeKey(volume));
  Result<UniqueFd> directory = OpenSourcesDir();
  // Without the directory there is no such source.
  if (!directory.ok())
    return Status(directory.status().error(),
                  SourcePath(volume) + ": " + directory.status().message());
  return OpenSourceIn(*directory, volume + std::string(kSourceSuffix));
}

Result<UniqueFd> RegisteredFiles::OpenObject(const std::string& volume,
                                             const std::string& url) const {
  ASSIGN_OR_RETURN(const UniqueFd file, OpenSource(volume));
  ASSIGN_OR_RETURN(const SourceConfig config, ReadSourceConfig(file, SourcePath(volume)));
  for (const LocalFile& local : config.local) {
    if (!url.empty() && local.url == url) return cachecore::OpenPinnedFile(local.pin);
  }
  return Status(EPERM, url + ": its source does not name it");
}

Result<UniqueFd> RegisteredFiles::OpenFile(const std::string& path) const {
  ASSIGN_OR_RETURN(const UniqueFd directory, OpenSourcesDir());
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(
      fdopendir(fcntl(directory.get(), F_DUPFD_CLOEXEC, 0)), closedir);
  if (!entries) return Status::FromErrno(errno, sources_dir_);
  Status refused(EPERM, path + ": no source names it");
  while (const dirent* entry = readdir(entries.get())) {
    const std::string name = entry->d_name;
    if (name[0] == '.' || !name.ends_with(kSourceSuffix)) continue;
    const Result<UniqueFd> file = OpenSourceIn(directory, name);
    if (!file.ok()) continue;
    const Result<SourceConfig> config = ReadSourceConfig(*file, sources_dir_ + "/" + name);
    if (!config.ok()) continue;
    const std::optional<cachecore::FilePin> pin = config->FindFile(path);
    if (!pin) continue;
    Result<UniqueFd> opened = cachecore::OpenPinnedFile(*pin);
    // A source of an earlier mount may know another owner.
    const int error = opened.status().error();
    if (error != EPERM && error != EACCES) return opened;
    refused = opened.status();
  }
  return refused;
}

Result<UniqueFd> RegisteredFiles::OpenDevice() const {
  UniqueFd socket(open(device_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info;
  if (!socket.valid() || fstat(socket.get(), &info) != 0) {
    return Status::FromErrno(errno, "connecting to " + device_);
  }
  if (!S_ISSOCK(info.st_mode)) return Status(ENOTSOCK, device_ + " is not a socket");
  return socket;
}

}  // namespace fetcher
