// DescriptorTable: copies of the descriptors that a process has stored, where a supervisor finds
// them that has lost its own.
//
// Model    the process keeps a copy of each descriptor that it stores, and lists number and name in
//          a memory file, which another process finds among this one's descriptors.  CopyFrom needs
//          no answer of the process, which may be stopped or hang: the table is right after each
//          instruction.  An entry that changes while it is copied is left out; its process tells
//          the notify socket of the change afterwards.
// Errors   Create, Put: those of the descriptors that can't be had; ENOSPC: too many.  CopyFrom:
//          ENOENT, the process has no table, or none yet; EPERM, its descriptors may not be copied.
// Threads  thread-safe.
// Owns     the copies, until they are removed.
// Cost     20 KiB of memory, and a descriptor for each entry.
// Crash    ends with the process.
// See      pidfd_getfd(2)

#ifndef CACHECORE_ENVIRONMENT_DESCRIPTOR_TABLE_H_
#define CACHECORE_ENVIRONMENT_DESCRIPTOR_TABLE_H_

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

class DescriptorTable {
 public:
  static constexpr size_t kEntriesMax = 64;

  struct Stored {
    std::string name;
    int fd = -1;
    bool is_polled = false;  // As of a store that closes it once it is hung up.
  };

  // Is found from then on that all of `stored` is listed.
  static Result<std::unique_ptr<DescriptorTable>> Create(const std::vector<Stored>& stored);
  ~DescriptorTable();
  DescriptorTable(const DescriptorTable&) = delete;
  DescriptorTable& operator=(const DescriptorTable&) = delete;

  Status Put(const Stored& stored);
  // All of that name.
  void Remove(std::string_view name);
  // The process serves.
  void SetReady();

  struct Copy {
    std::string name;
    UniqueFd fd;
    bool is_polled = false;
  };
  struct Copies {
    std::vector<Copy> copies;
    bool is_ready = false;
  };
  // `process`: pinned by `pidfd`.
  static Result<Copies> CopyFrom(pid_t process, const UniqueFd& pidfd);

 private:
  struct Layout;

  DescriptorTable(UniqueFd memory, Layout* layout) : memory_(std::move(memory)), layout_(layout) {}

  const UniqueFd memory_;
  Layout* const layout_;
  Mutex mu_;
  std::array<UniqueFd, kEntriesMax> copies_ GUARDED_BY(mu_);
};

}  // namespace cachecore

#endif  // CACHECORE_ENVIRONMENT_DESCRIPTOR_TABLE_H_
