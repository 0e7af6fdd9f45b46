#include "cli/trusted_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <deque>
#include <sstream>

#include "cli/files.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr int kLinksMax = 40;  // As the kernel.

void PutParts(const std::string& path, std::deque<std::string>* parts) {
  std::deque<std::string> found;
  std::istringstream stream(path);
  for (std::string part; std::getline(stream, part, '/');) {
    if (!part.empty() && part != ".") found.push_back(part);
  }
  parts->insert(parts->begin(), found.begin(), found.end());
}

bool IsOurs(const struct stat& info) { return info.st_uid == 0 || info.st_uid == geteuid(); }

Status NotOurs(const std::string& path, const struct stat& info) {
  return Status(EPERM, path + " belongs to user " + std::to_string(info.st_uid) +
                           ", who could put something else in its place; chown root " + path);
}

Status CheckOnTheWay(const std::string& path, const struct stat& info) {
  if (!IsOurs(info)) return NotOurs(path, info);
  const bool anybody_writes = (info.st_mode & S_IWOTH) != 0 && (info.st_mode & S_ISVTX) == 0;
  if (!S_ISDIR(info.st_mode) || !anybody_writes) return {};
  return Status(EPERM, "everybody may write in " + path + "; chmod o-w " + path);
}

// Follows the path step by step, as the kernel would.
Status Walk(const std::string& path, struct stat* last) {
  std::deque<std::string> parts;
  PutParts(path, &parts);
  std::string here;
  int links = 0;
  RETURN_IF_ERROR(lstat("/", last) == 0 ? Status() : Status::FromErrno(errno, "/"));
  while (!parts.empty()) {
    const std::string part = parts.front();
    parts.pop_front();
    if (part == "..") {
      here.resize(here.empty() ? 0 : here.rfind('/'));
      continue;
    }
    const std::string next = here + "/" + part;
    if (lstat(next.c_str(), last) != 0) return Status::FromErrno(errno, next);
    RETURN_IF_ERROR(CheckOnTheWay(next, *last));
    if (!S_ISLNK(last->st_mode)) {
      here = next;
      continue;
    }
    char target[PATH_MAX];
    const ssize_t length = readlink(next.c_str(), target, sizeof target);
    if (length < 0) return Status::FromErrno(errno, next);
    if (++links > kLinksMax) return Status::FromErrno(ELOOP, path);
    const std::string text(target, static_cast<size_t>(length));
    if (text.starts_with('/')) here.clear();
    PutParts(text, &parts);
  }
  return lstat(here.empty() ? "/" : here.c_str(), last) == 0 ? Status()
                                                             : Status::FromErrno(errno, here);
}

}  // namespace

Status CheckTrusted(const std::string& path) {
  struct stat info = {};
  RETURN_IF_ERROR(Walk(path, &info));
  if (!S_ISDIR(info.st_mode)) return Status(ENOTDIR, path + " is in the way: not a directory");
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) == 0) return {};
  return Status(EPERM, "others than its owner may write in " + path + "; chmod go-w " + path);
}

Status MakeTrustedDirectory(const std::string& path, mode_t mode) {
  RETURN_IF_ERROR(MakeDirectories(path, mode));
  return CheckTrusted(path);
}

}  // namespace cli
