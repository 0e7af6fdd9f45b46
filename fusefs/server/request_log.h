// RequestLog: the FUSE requests that have been taken from the kernel and not answered, kept where
// the next daemon finds them.  For kernels that cannot send them again (before 6.9).
//
// Model    one memory file, shared with the fd store: an area to receive into for each reader
//          thread, and a table of slots, one for each request that waits for its answer.  A request
//          is in its area from within read(2) on, then in a slot until its answer has been written:
//          there is no moment in which a dead daemon would have been the only one to know of it.
// Units    bytes; `unique` is the kernel's name of a request.
// Errors   Open: the errno of making or mapping the memory.  A request that no slot can hold
//          (longer than 996 bytes, or the table is full) is logged and not kept.
// Threads  thread-safe; an area belongs to its thread.
// Owns     the memory; the fd store holds a copy of its descriptor.
// Crash    killed between the answer and Remove, the next daemon handles the request again, and the
//          kernel refuses the second answer (ENOENT).  An area may show a request that was answered
//          long ago, to the same end.
// See      docs/recovery.md.

#ifndef FUSEFS_SERVER_REQUEST_LOG_H_
#define FUSEFS_SERVER_REQUEST_LOG_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace fusefs {

class RequestLog {
 public:
  static constexpr char kMemoryName[] = "holdfast-requests";  // As /proc/PID/fd shows it.
  static constexpr int kAreas = 64;
  // What libfuse may read before INIT has settled the size.
  static constexpr size_t kAreaBytes = (1 << 20) + (64 << 10);

  // `memory`: what memory() of the last daemon gave, or invalid for a new mount.  Memory that is
  // not ours, or of another layout, is an error: EPROTO.
  static cachecore::Result<std::unique_ptr<RequestLog>> Open(cachecore::UniqueFd memory);
  // Whether Open would take this memory, of a daemon that is using it; EPROTO.  Changes nothing.
  static cachecore::Status CheckLayout(int memory);
  ~RequestLog();

  int memory() const { return memory_.get(); }
  // Where thread `index` receives.  Its first pages are there already, and locked: were the daemon
  // killed while the kernel faults one in during read(), that request would be answered EIO.
  void* Area(int index);

  // Keeps a request until Remove.  Those that have no answer are passed over.
  void Add(const void* request, size_t size) EXCLUDES(mu_);
  // It has been answered.  No-op for one that is not kept.
  void Remove(uint64_t unique) EXCLUDES(mu_);

  // What the last daemon had not answered, in the order it was asked; all of it is kept on.  Once,
  // before any area is used.
  std::vector<std::string> TakeUnanswered() { return std::move(unanswered_); }

 private:
  struct Header;
  struct Slot;

  explicit RequestLog(cachecore::UniqueFd memory) : memory_(std::move(memory)) {}
  cachecore::Status Map(bool fresh);
  void Collect() EXCLUDES(mu_);
  Slot* SlotAt(uint32_t index);

  const cachecore::UniqueFd memory_;
  char* base_ = nullptr;
  Header* header_ = nullptr;
  std::vector<std::string> unanswered_;
  cachecore::Mutex mu_;
  std::unordered_map<uint64_t, uint32_t> slots_ GUARDED_BY(mu_);  // By unique.
  std::vector<uint32_t> free_ GUARDED_BY(mu_);                    // Below the header's high water.
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_REQUEST_LOG_H_
