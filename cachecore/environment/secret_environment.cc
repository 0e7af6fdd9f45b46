#include "cachecore/environment/secret_environment.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace cachecore {
namespace {

constexpr const char* kNames[] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
                                  "AWS_SESSION_TOKEN"};
// Secret where the proxy's URL has a user.
constexpr const char* kProxyNames[] = {"http_proxy",  "HTTP_PROXY", "https_proxy",
                                       "HTTPS_PROXY", "all_proxy",  "ALL_PROXY"};
constexpr size_t kMaxBytes = 64 << 10;

// Moves the variable into `values`, and leaves none of it where it was.
void TakeOut(const char* name, char* value, std::map<std::string, std::string>* values) {
  if (*value != '\0') (*values)[name] = value;
  explicit_bzero(value, strlen(value));
  unsetenv(name);
}

}  // namespace

SecretEnvironment::~SecretEnvironment() {
  for (auto& [name, value] : values_) explicit_bzero(value.data(), value.size());
}

bool SecretEnvironment::IsSecret(std::string_view name) {
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

bool SecretEnvironment::IsSet() {
  return std::any_of(std::begin(kNames), std::end(kNames),
                     [](const char* name) { return getenv(name) != nullptr; });
}

SecretEnvironment SecretEnvironment::Take() {
  SecretEnvironment taken;
  for (const char* name : kNames) {
    if (char* value = getenv(name)) TakeOut(name, value, &taken.values_);
  }
  for (const char* name : kProxyNames) {
    char* value = getenv(name);
    // A user alone may be a token.
    if (value != nullptr && strchr(value, '@') != nullptr) TakeOut(name, value, &taken.values_);
  }
  return taken;
}

void SecretEnvironment::SetProxies() const {
  for (const char* name : kProxyNames) {
    const auto value = values_.find(name);
    if (value != values_.end()) setenv(name, value->second.c_str(), /*overwrite=*/1);
  }
}

std::string SecretEnvironment::Get(const std::string& name) const {
  const auto value = values_.find(name);
  return value == values_.end() ? "" : value->second;
}

Result<UniqueFd> SecretEnvironment::Store() const {
  UniqueFd file(memfd_create("holdfast-environment", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) return Status::FromErrno(errno, "make a memory file for the environment");
  // In one piece, so that no copy of a secret is left where the string grew.
  size_t size = 0;
  for (const auto& [name, value] : values_) size += name.size() + value.size() + 2;
  std::string text;
  text.reserve(size);
  for (const auto& [name, value] : values_) {
    text += name;
    text += '=';
    text += value;
    text += '\0';
  }
  const ssize_t written = write(file.get(), text.data(), text.size());
  const bool whole = written == static_cast<ssize_t>(text.size());
  explicit_bzero(text.data(), text.size());
  if (!whole) return Status::FromErrno(errno, "write a memory file for the environment");
  fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
  return file;
}

Result<SecretEnvironment> SecretEnvironment::Load(int fd) {
  std::string text(kMaxBytes, '\0');
  const ssize_t got = pread(fd, text.data(), text.size(), 0);
  if (got < 0) return Status::FromErrno(errno, "read the memory file of the environment");
  SecretEnvironment loaded;
  const std::string_view all(text.data(), static_cast<size_t>(got));
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\0', begin), all.size());
    const std::string_view entry = all.substr(begin, end - begin);
    const size_t equals = entry.find('=');
    if (equals != std::string_view::npos) {
      loaded.values_[std::string(entry.substr(0, equals))] = entry.substr(equals + 1);
    }
    begin = end + 1;
  }
  explicit_bzero(text.data(), text.size());
  return loaded;
}

}  // namespace cachecore
