// DataRoom: whether an object's data file has room, or its disk is full.
//
// Model    a write that found no room begins a spell, which lasts until bytes have been kept.
//          While it lasts, room is looked for once in a while, by taking some.  Objects of one
//          connection share the count of those without room, so that a full disk is logged once.
// Errors   none: what a write failed with is an argument.
// Threads  the event loop's.
// Owns     its place in the count.

#ifndef FETCHER_ROOM_DATA_ROOM_H_
#define FETCHER_ROOM_DATA_ROOM_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "cachecore/base/clock.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

class DataRoom {
 public:
  // How long room for data may go unnoticed, and how much is looked for.
  static constexpr std::chrono::seconds kInterval{1};
  static constexpr uint64_t kSought = 64 << 10;

  // `without_room`: how many objects have none; outlives this.
  explicit DataRoom(size_t* without_room) : without_room_(without_room) {}
  ~DataRoom() {
    if (failure_) --*without_room_;
  }
  DataRoom(const DataRoom&) = delete;
  DataRoom& operator=(const DataRoom&) = delete;

  // A write at `begin` of the object found no room.  `goes_through`: it is served all the same.
  void Lacks(const Failure& failure, uint64_t begin, bool goes_through, Duration now);
  bool is_lacking() const { return failure_.has_value(); }
  // What the last write failed with.  REQUIRES: is_lacking().
  const Failure& failure() const { return *failure_; }
  // Where none was found.
  uint64_t begin() const { return begin_; }
  // Nothing is fetched before, then if there may be room.
  Duration look_at() const { return look_at_; }
  // Whether there may be room from `begin` of the file on, which is taken.
  static bool IsThere(int data_fd, uint64_t begin, uint64_t size_bytes);
  // Bytes have been kept.  REQUIRES: is_lacking().
  void Found();

 private:
  size_t* const without_room_;
  std::optional<Failure> failure_;
  Duration look_at_ = Duration::zero();
  uint64_t begin_ = 0;
};

}  // namespace fetcher

#endif  // FETCHER_ROOM_DATA_ROOM_H_
