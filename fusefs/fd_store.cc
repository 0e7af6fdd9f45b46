#include "fusefs/fd_store.h"

#include <glog/logging.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace fusefs {

using cachecore::Status;
using cachecore::UniqueFd;

namespace {

// How long the keeper may take to confirm; it does nothing but this.
constexpr uint64_t kBarrierMicroseconds = 5'000'000;

}  // namespace

FdStore::FdStore() : available_(std::getenv("NOTIFY_SOCKET") != nullptr) {
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  for (int i = 0; i < count; ++i) {
    const std::string name = names != nullptr ? names[i] : "";
    UniqueFd fd(SD_LISTEN_FDS_START + i);
    // The first of a name; a second can only be left over from a confused life, and is let go.
    returned_.try_emplace(name, std::move(fd));
  }
  for (int i = 0; i < count && names != nullptr; ++i) std::free(names[i]);
  std::free(names);
}

UniqueFd FdStore::Take(const std::string& name) {
  auto it = returned_.find(name);
  if (it == returned_.end()) return UniqueFd();
  UniqueFd fd = std::move(it->second);
  returned_.erase(it);
  return fd;
}

Status FdStore::Store(const std::string& name, int fd) {
  if (!available_) return Status(ENOTCONN, "no supervisor keeps descriptors ($NOTIFY_SOCKET)");
  const std::string text = "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name;
  const int sent = sd_pid_notify_with_fds(0, 0, text.c_str(), &fd, 1);
  if (sent < 0) return Status::FromErrno(-sent, "storing the descriptor \"" + name + "\"");
  const int handled = sd_notify_barrier(0, kBarrierMicroseconds);
  if (handled < 0) {
    return Status::FromErrno(-handled, "waiting for the descriptor \"" + name + "\" to be stored");
  }
  return Status();
}

void FdStore::Remove(const std::string& name) {
  if (!available_) return;
  const int sent = sd_notify(0, ("FDSTOREREMOVE=1\nFDNAME=" + name).c_str());
  if (sent < 0)
    LOG(WARNING) << "removing the stored descriptor " << name << ": " << strerror(-sent);
}

}  // namespace fusefs
