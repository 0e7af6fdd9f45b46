// StoredDescriptors: the file descriptors one service left with its supervisor, by name.
//
// Model    at most capacity() entries, in order of storing.  An open file is stored once: another
//          descriptor of the same open file is dropped whatever its name.  Names need not be
//          unique.  An entry stored with `poll` goes by itself once its file reports HUP or ERR;
//          one without is never polled, since a watcher on a FUSE descriptor is woken at each of
//          its requests.
// Errors   Create fails when epoll can't be had.  Afterwards no error is reported, as with systemd:
//          the outcome says what became of a descriptor, the sender isn't told.
// Threads  one thread only.
// Owns     every stored descriptor, at numbers >= first_fd so that a child may dup2 them onto 3, 4,
//          ... without overwriting one it still needs; and an epoll descriptor.
// Cost     all memory is taken by Create.  Add is a kcmp(2) per entry.
// See      sd_notify(3) FDSTORE=1, systemd 252 src/core/service.c.

#ifndef HOST_NOTIFY_STORED_DESCRIPTORS_H_
#define HOST_NOTIFY_STORED_DESCRIPTORS_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "host/notify/notify_message.h"

namespace host {

class StoredDescriptors {
 public:
  enum class AddOutcome { kStored, kDuplicate, kFull, kFailed };

  static cachecore::Result<std::unique_ptr<StoredDescriptors>> Create(size_t capacity,
                                                                      int first_fd);
  ~StoredDescriptors() { Clear(); }
  StoredDescriptors(const StoredDescriptors&) = delete;
  StoredDescriptors& operator=(const StoredDescriptors&) = delete;

  // REQUIRES: IsValidFdName(name).
  AddOutcome Add(cachecore::UniqueFd fd, std::string_view name, bool poll);
  // Closes every entry of that name; returns how many there were.
  size_t Remove(std::string_view name);
  // Closes the polled entries that report HUP or ERR; returns how many.  Never blocks.
  size_t RemoveHungUp();
  void Clear();

  // Readable when RemoveHungUp() has work.
  int poll_fd() const { return epoll_.get(); }
  size_t capacity() const { return capacity_; }
  size_t size() const { return size_; }
  // REQUIRES: index < size().
  int fd(size_t index) const { return entries_[index].fd; }
  bool is_polled(size_t index) const { return entries_[index].polled; }
  std::string_view name(size_t index) const {
    return {entries_[index].name, entries_[index].name_length};
  }

 private:
  struct Entry {
    int fd;
    bool polled;
    size_t name_length;
    char name[kFdNameBytesMax];
  };

  StoredDescriptors(size_t capacity, int first_fd, cachecore::UniqueFd epoll);
  void RemoveAt(size_t index);

  const size_t capacity_;
  const int first_fd_;
  cachecore::UniqueFd epoll_;
  size_t size_ = 0;             // entries_[0, size_) are in use.
  std::vector<Entry> entries_;  // Sized once, in the constructor.
};

}  // namespace host

#endif  // HOST_NOTIFY_STORED_DESCRIPTORS_H_
