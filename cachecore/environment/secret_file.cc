#include "cachecore/environment/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "cachecore/base/unique_fd.h"

namespace cachecore {
namespace {

constexpr size_t kMaxSecretBytes = 1 << 20;

Status CheckOpenSecret(const UniqueFd& file, const std::string& path, const std::string& name) {
  struct stat info;
  if (fstat(file.get(), &info) != 0) return Status::FromErrno(errno, name);
  if (!S_ISREG(info.st_mode)) return Status(EINVAL, name + " is not a regular file");
  if ((info.st_mode & S_IROTH) != 0) {
    return Status(EACCES, name + " can be read by all users; run: chmod o-rwx " + path);
  }
  return Status();
}

Result<UniqueFd> OpenSecretFile(const std::string& path, const std::string& name) {
  // An open of a fifo without a writer would block.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid() && errno == EACCES) {
    return Status(EACCES, name + " can't be read by user " + std::to_string(geteuid()) +
                              ": give it that user's group and mode 0640");
  }
  if (!fd.valid()) return Status::FromErrno(errno, name);
  RETURN_IF_ERROR(CheckOpenSecret(fd, path, name));
  return fd;
}

}  // namespace

Result<std::string> ReadOpenFile(const UniqueFd& file, const std::string& name) {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t got = read(file.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::FromErrno(errno, name);
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kMaxSecretBytes) return Status(EINVAL, name + " is larger than 1 MiB");
  }
}

Result<std::string> ReadOpenSecret(const UniqueFd& file, const std::string& path,
                                   const std::string& what) {
  const std::string name = what + " " + path;
  RETURN_IF_ERROR(CheckOpenSecret(file, path, name));
  return ReadOpenFile(file, name);
}

Result<std::string> ReadSecretFile(const std::string& path, const std::string& what) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenSecretFile(path, what + " " + path));
  return ReadOpenFile(fd, what + " " + path);
}

Status CheckSecretFile(const std::string& path, const std::string& what) {
  return OpenSecretFile(path, what + " " + path).status();
}

}  // namespace cachecore
