#include "host/instance/trusted_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "cachecore/system/files.h"
#include "cachecore/system/trusted_path.h"

namespace host {
namespace {

using cachecore::MakeDirectories;
using cachecore::OpenTrustedPath;
using cachecore::Status;
using cachecore::UniqueFd;

bool IsOurs(const struct stat& info) { return info.st_uid == 0 || info.st_uid == geteuid(); }

Status NotOurs(const std::string& path, const struct stat& info) {
  return Status(EPERM, path + " belongs to user " + std::to_string(info.st_uid) +
                           ", who could put something else in its place; chown root " + path);
}

Status CheckOnTheWay(const std::string& path, const struct stat& info) {
  if (!IsOurs(info)) return NotOurs(path, info);
  const bool anybody_writes = (info.st_mode & S_IWOTH) != 0 && (info.st_mode & S_ISVTX) == 0;
  if (!S_ISDIR(info.st_mode) || !anybody_writes) return {};
  return Status(EPERM, "all users may write to " + path + "; chmod o-w " + path);
}

}  // namespace

Status CheckTrusted(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd found,
                   OpenTrustedPath(path, {.user = geteuid(), .check = CheckOnTheWay}));
  struct stat info;
  if (fstat(found.get(), &info) != 0) return Status::FromErrno(errno, path);
  if (!S_ISDIR(info.st_mode)) return Status(ENOTDIR, path + " is in the way: not a directory");
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) == 0) return {};
  return Status(EPERM, "others than its owner may write in " + path + "; chmod go-w " + path);
}

Status MakeTrustedDirectory(const std::string& path, mode_t mode) {
  RETURN_IF_ERROR(MakeDirectories(path, mode));
  RETURN_IF_ERROR(CheckTrusted(path));
  // One that was made as the parent of something else, or by an earlier version, is open to more.
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return Status::FromErrno(errno, path);
  if ((info.st_mode & 0777 & ~mode) == 0) return {};
  return chmod(path.c_str(), info.st_mode & mode) == 0 ? Status()
                                                       : Status::FromErrno(errno, "chmod " + path);
}

}  // namespace host
