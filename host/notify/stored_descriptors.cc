#include "host/notify/stored_descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

// Whether two descriptors are one open file.
bool IsSameOpenFile(int a, int b) {
  struct stat stat_a, stat_b;
  if (fstat(a, &stat_a) != 0 || fstat(b, &stat_b) != 0) return false;
  if (stat_a.st_dev != stat_b.st_dev || stat_a.st_ino != stat_b.st_ino) return false;
  long order = syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b);
  if (order >= 0) return order == 0;
  // kcmp may be compiled out or forbidden in a container.  The inode is then all there is to go by,
  // except for devices: every /dev/fuse connection shares one inode and losing one loses a mount.
  if (S_ISCHR(stat_a.st_mode) || S_ISBLK(stat_a.st_mode)) return false;
  return fcntl(a, F_GETFL) == fcntl(b, F_GETFL);
}

}  // namespace

Result<std::unique_ptr<StoredDescriptors>> StoredDescriptors::Create(size_t capacity,
                                                                     int first_fd) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return Status::FromErrno(errno, "create the epoll set of an fd store");
  return std::unique_ptr<StoredDescriptors>(
      new StoredDescriptors(capacity, first_fd, std::move(epoll)));
}

StoredDescriptors::StoredDescriptors(size_t capacity, int first_fd, UniqueFd epoll)
    : capacity_(capacity), first_fd_(first_fd), epoll_(std::move(epoll)), entries_(capacity) {}

StoredDescriptors::AddOutcome StoredDescriptors::Add(UniqueFd fd, std::string_view name,
                                                     bool poll) {
  for (size_t i = 0; i < size_; ++i) {
    if (IsSameOpenFile(entries_[i].fd, fd.get())) return AddOutcome::kDuplicate;
  }
  if (size_ == capacity_) return AddOutcome::kFull;
  UniqueFd high(fcntl(fd.get(), F_DUPFD_CLOEXEC, first_fd_));
  if (!high.valid()) return AddOutcome::kFailed;

  Entry& entry = entries_[size_++];
  entry.fd = high.Release();
  entry.name_length = std::min(name.size(), kFdNameBytesMax);
  std::copy_n(name.begin(), entry.name_length, entry.name);
  entry.polled = false;
  if (poll) {
    // No event asked for: HUP and ERR are reported always.  EPERM means a file that can't be
    // polled.
    epoll_event event{};
    event.data.fd = entry.fd;
    // EEXIST: a copy of this process, which has the same epoll set, has stored it under this number.
    entry.polled = epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, entry.fd, &event) == 0 || errno == EEXIST;
  }
  return AddOutcome::kStored;
}

size_t StoredDescriptors::Remove(std::string_view wanted) {
  size_t before = size_;
  for (size_t i = size_; i-- > 0;) {
    if (name(i) == wanted) RemoveAt(i);
  }
  return before - size_;
}

size_t StoredDescriptors::RemoveHungUp() {
  constexpr int kEventsMax = 32;  // More stay readable for the next turn.
  epoll_event events[kEventsMax];
  int count = epoll_wait(epoll_.get(), events, kEventsMax, 0);
  size_t before = size_;
  for (int e = 0; e < count; ++e) {
    for (size_t i = 0; i < size_; ++i) {
      if (entries_[i].fd != events[e].data.fd) continue;
      RemoveAt(i);
      break;
    }
  }
  return before - size_;
}

void StoredDescriptors::Clear() {
  while (size_ > 0) RemoveAt(size_ - 1);
}

void StoredDescriptors::RemoveAt(size_t index) {
  Entry& entry = entries_[index];
  // close() alone would leave the epoll entry while the service holds the same open file.
  if (entry.polled) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry.fd, nullptr);
  close(entry.fd);
  std::move(entries_.begin() + static_cast<ptrdiff_t>(index) + 1,
            entries_.begin() + static_cast<ptrdiff_t>(size_),
            entries_.begin() + static_cast<ptrdiff_t>(index));
  --size_;
}

}  // namespace host
