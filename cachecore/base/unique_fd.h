// UniqueFd: owns one file descriptor and closes it exactly once.
//
// Threads  thread-compatible.
// Owns     the descriptor, from construction or Reset() until Release(), Reset() or destruction.

#ifndef CACHECORE_BASE_UNIQUE_FD_H_
#define CACHECORE_BASE_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace cachecore {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace cachecore

#endif  // CACHECORE_BASE_UNIQUE_FD_H_
