#include "fusefs/service/fd_store.h"

#include <glog/logging.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>
#include <vector>

#include "cachecore/base/unix_socket.h"

namespace fusefs {

using cachecore::DescriptorTable;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

// How long the keeper may take to confirm; it does nothing but this.
constexpr uint64_t kBarrierMicroseconds = 5'000'000;

// What the supervisor calls a spare's socket, and the most that it sends there.
constexpr char kSpareName[] = "spare";
constexpr size_t kNamesMax = 128 << 10;

}  // namespace

FdStore::FdStore() : available_(std::getenv("NOTIFY_SOCKET") != nullptr) {
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  for (int i = 0; i < count; ++i) {
    const std::string name = names != nullptr ? names[i] : "";
    UniqueFd fd(SD_LISTEN_FDS_START + i);
    // The first of a name; a second can only remain from an earlier error, and is closed.
    returned_.try_emplace(name, std::move(fd));
  }
  for (int i = 0; i < count && names != nullptr; ++i) std::free(names[i]);
  std::free(names);
  if (!is_spare()) ListReturned();
}

// Before anything else is done: from now on a keeper can be replaced.
void FdStore::ListReturned() {
  if (!available_) return;
  std::vector<DescriptorTable::Stored> stored;
  for (const auto& [name, fd] : returned_) stored.push_back({.name = name, .fd = fd.get()});
  auto table = DescriptorTable::Create(stored);
  if (table.ok()) {
    table_ = std::move(table).value();
  } else {
    LOG(ERROR) << table.status().message() << "; if the supervisor and its standby are "
               << "killed at the same moment, the mounts are lost";
  }
}

Status FdStore::AwaitTurn() {
  const UniqueFd socket = Take(kSpareName);
  const char fit = '\n';
  if (send(socket.get(), &fit, sizeof(fit), MSG_NOSIGNAL) != sizeof(fit)) {
    return Status(ECONNRESET, "no spare is wanted");
  }
  std::vector<char> names(kNamesMax);
  std::vector<UniqueFd> fds(cachecore::kPacketFdsMax);
  const cachecore::ReceivedPacket received =
      cachecore::ReceiveWithDescriptors(socket.get(), names, fds);
  if (received.size <= 0) return Status(ECONNRESET, "no spare is wanted");
  // Sent at once, so that the watchdog does not regard this process as hung.
  sd_notify(0, "STATUS=taking over");
  fds.resize(received.fd_count);
  const bool whole = (received.flags & (MSG_CTRUNC | MSG_TRUNC)) == 0;
  std::istringstream text(std::string(names.data(), static_cast<size_t>(received.size - 1)));
  size_t next = 0;
  for (std::string name; std::getline(text, name, ':') && next < fds.size(); ++next) {
    returned_.try_emplace(name, std::move(fds[next]));
  }
  ListReturned();
  if (whole && next == fds.size()) return Status();
  return Status(EPROTO, "the supervisor's descriptors did not arrive whole");
}

UniqueFd FdStore::Take(const std::string& name) {
  auto it = returned_.find(name);
  if (it == returned_.end()) return UniqueFd();
  UniqueFd fd = std::move(it->second);
  returned_.erase(it);
  return fd;
}

int FdStore::Find(const std::string& name) const {
  const auto it = returned_.find(name);
  return it == returned_.end() ? -1 : it->second.get();
}

Status FdStore::Store(const std::string& name, int fd) {
  if (!available_) return Status(ENOTCONN, "no supervisor keeps descriptors ($NOTIFY_SOCKET)");
  // Listed first, and without a keeper too: the next one may look before it has bound its socket.
  if (table_ != nullptr) RETURN_IF_ERROR(table_->Put({.name = name, .fd = fd}));
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
  if (table_ != nullptr) table_->Remove(name);
  const int sent = sd_notify(0, ("FDSTOREREMOVE=1\nFDNAME=" + name).c_str());
  if (sent < 0)
    LOG(WARNING) << "removing the stored descriptor " << name << ": " << strerror(-sent);
}

void FdStore::SayReady() {
  if (table_ != nullptr) table_->SetReady();
  sd_notify(0, "READY=1");
}

}  // namespace fusefs
