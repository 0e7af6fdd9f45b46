#include "cli/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using nlohmann::json;

Status WriteAll(int fd, const std::string& contents, const std::string& path) {
  size_t done = 0;
  while (done < contents.size()) {
    const ssize_t n = write(fd, contents.data() + done, contents.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "write " + path);
    done += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace

Result<std::string> ReadFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  std::string contents;
  char buffer[16384];
  for (;;) {
    const ssize_t n = read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "read " + path);
    if (n == 0) return contents;
    contents.append(buffer, static_cast<size_t>(n));
  }
}

Result<json> ReadJsonFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return Status(EBADMSG, path + " is not a JSON object");
  return value;
}

Status WriteFileAtomically(const std::string& path, const std::string& contents, mode_t mode) {
  const std::string temporary = path + ".new" + std::to_string(getpid());
  unlink(temporary.c_str());
  UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd.valid()) return Status::FromErrno(errno, "create " + temporary);
  Status status = WriteAll(fd.get(), contents, temporary);
  if (status.ok() && fsync(fd.get()) != 0) status = Status::FromErrno(errno, "fsync " + temporary);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = Status::FromErrno(errno, "rename to " + path);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

Status CreateFileExclusively(const std::string& path, const std::string& contents, mode_t mode) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd.valid()) return Status::FromErrno(errno, "create " + path);
  Status status = WriteAll(fd.get(), contents, path);
  if (!status.ok()) unlink(path.c_str());
  return status;
}

Status MakeDirectories(const std::string& path, mode_t mode) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (mkdir(parent.c_str(), 0755) != 0 && errno != EEXIST) {
      return Status::FromErrno(errno, "create directory " + parent);
    }
  }
  if (mkdir(path.c_str(), mode) == 0) return {};
  if (errno != EEXIST) return Status::FromErrno(errno, "create directory " + path);
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return Status::FromErrno(errno, path);
  if (!S_ISDIR(info.st_mode)) return Status(ENOTDIR, path + " is in the way: not a directory");
  return {};
}

Status MakePrivateDirectory(const std::string& path) {
  RETURN_IF_ERROR(MakeDirectories(path, 0700));
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info;
  if (!fd.valid() || fstat(fd.get(), &info) != 0) return Status::FromErrno(errno, path);
  if (info.st_uid != geteuid()) {
    return Status(EPERM, path + " belongs to uid " + std::to_string(info.st_uid) +
                             "; it must be root's");
  }
  if ((info.st_mode & 07777) == 0700) return {};
  return fchmod(fd.get(), 0700) == 0 ? Status() : Status::FromErrno(errno, "chmod " + path);
}

std::vector<std::string> ListDirectory(const std::string& path) {
  std::vector<std::string> names;
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return names;
  while (const dirent* entry = readdir(directory.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

namespace {

// `lock` takes the lock of an open directory.
Result<UniqueFd> LockDirectoryBy(const std::function<Status(int fd)>& lock, const std::string& path,
                                 mode_t mode) {
  for (;;) {
    RETURN_IF_ERROR(MakeDirectories(path, mode));
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid() && errno == ENOENT) continue;  // Its last holder has just removed it.
    if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
    RETURN_IF_ERROR(lock(fd.get()).WithContext("lock " + path));
    struct stat locked, named;
    if (fstat(fd.get(), &locked) == 0 && stat(path.c_str(), &named) == 0 &&
        locked.st_ino == named.st_ino && locked.st_dev == named.st_dev) {
      return fd;
    }
  }
}

}  // namespace

Result<UniqueFd> LockDirectory(const std::string& path, mode_t mode) {
  const auto wait = [](int fd) {
    return flock(fd, LOCK_EX) == 0 ? Status() : Status::FromErrno(errno, "flock");
  };
  return LockDirectoryBy(wait, path, mode);
}

Result<UniqueFd> LockDirectory(const std::string& path, mode_t mode, const Deadline& deadline) {
  const auto wait = [&deadline](int fd) {
    return WaitUntil([fd] { return flock(fd, LOCK_EX | LOCK_NB) == 0; }, deadline);
  };
  return LockDirectoryBy(wait, path, mode);
}

Result<UniqueFd> TryLockDirectory(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, path);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno == EWOULDBLOCK) return Status(EBUSY, path + " is in use");
  return Status::FromErrno(errno, "lock " + path);
}

namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

// The length of the UTF-8 sequence at the begin of `text`; 0: it is none.
size_t SequenceLength(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto follows = [&](size_t i, unsigned char low, unsigned char high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(1, 0x80, 0xbf) ? 2 : 0;
  if ((first & 0xf0) == 0xe0) {
    const unsigned char low = first == 0xe0 ? 0xa0 : 0x80;   // Not longer than need be,
    const unsigned char high = first == 0xed ? 0x9f : 0xbf;  // and no surrogate.
    return follows(1, low, high) && follows(2, 0x80, 0xbf) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const unsigned char low = first == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = first == 0xf4 ? 0x8f : 0xbf;
    return follows(1, low, high) && follows(2, 0x80, 0xbf) && follows(3, 0x80, 0xbf) ? 4 : 0;
  }
  return 0;
}

std::string EscapedBytes(const std::string& text) {
  std::string escaped;
  for (size_t i = 0; i < text.size();) {
    const size_t length = SequenceLength(std::string_view(text).substr(i));
    if (length == 0) {
      const auto byte = static_cast<unsigned char>(text[i]);
      escaped += {'\0', kHexDigits[byte >> 4], kHexDigits[byte & 15]};
    } else {
      escaped.append(text, i, length);
    }
    i += std::max<size_t>(1, length);
  }
  return escaped;
}

std::string UnescapedBytes(std::string text) {
  if (text.find('\0') == std::string::npos) return text;
  const auto digit = [](char c) {
    const char* found = c == '\0' ? nullptr : std::strchr(kHexDigits, c);
    return found == nullptr ? -1 : static_cast<int>(found - kHexDigits);
  };
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_escape = text[i] == '\0' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
                           digit(text[i + 2]) >= 0;
    plain += is_escape ? static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2])) : text[i];
    if (is_escape) i += 2;
  }
  return plain;
}

void EscapeStrings(json* value) {
  if (value->is_string()) {
    *value = EscapedBytes(value->get<std::string>());
  } else if (value->is_structured()) {
    for (json& part : *value) EscapeStrings(&part);
  }
}

}  // namespace

const json& JsonField(const json& object, const char* key) {
  static const json kEmpty = json::object();
  if (!object.is_object()) return kEmpty;
  const auto found = object.find(key);
  return found == object.end() ? kEmpty : *found;
}

std::string JsonString(const json& object, const char* key, std::string fallback) {
  const json& field = JsonField(object, key);
  return field.is_string() ? UnescapedBytes(field.get<std::string>()) : std::move(fallback);
}

int64_t JsonInt(const json& object, const char* key, int64_t fallback) {
  const json& field = JsonField(object, key);
  return field.is_number() ? field.get<int64_t>() : fallback;
}

bool JsonBool(const json& object, const char* key, bool fallback) {
  const json& field = JsonField(object, key);
  return field.is_boolean() ? field.get<bool>() : fallback;
}

std::vector<std::string> JsonStrings(const json& object, const char* key) {
  std::vector<std::string> strings;
  const json& field = JsonField(object, key);
  if (!field.is_array()) return strings;
  for (const json& item : field) {
    if (item.is_string()) strings.push_back(UnescapedBytes(item.get<std::string>()));
  }
  return strings;
}

std::string JsonText(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string RecordText(const json& value, int indent) {
  json escaped = value;
  EscapeStrings(&escaped);
  return JsonText(escaped, indent);
}

}  // namespace cli
