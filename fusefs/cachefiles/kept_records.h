// KeptRecords: small records in a memory file, which the next daemon finds in the fd store.
//
// Model    a map of keys to values.  Put and Erase gather changes, which Commit makes all at once:
//          a batch is appended to the active half of the file, and counts when the length in the
//          header has been stored.  A half that has grown gives way to the other one, which begins
//          with a copy of the map.
// Units    bytes.
// Errors   Open: the errno of making or mapping the memory; EPROTO for memory of another layout, or
//          that holds no whole map any more.  A map that does not fit in a half (16 MiB) is kept no
//          longer, which is logged: the next daemon begins anew.
// Threads  thread-compatible.
// Owns     the memory; the fd store holds a copy of its descriptor.
// Cost     a copy of the changed values a Commit; of the whole map after each 1 MiB of changes.
// Crash    killed at any moment, the memory holds the map of the last Commit that has returned, or
//          of the one that was under way.
// See      docs/recovery.md.

#ifndef FUSEFS_CACHEFILES_KEPT_RECORDS_H_
#define FUSEFS_CACHEFILES_KEPT_RECORDS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace fusefs {

class KeptRecords {
 public:
  static constexpr char kMemoryName[] = "holdfast-cachefiles";  // As /proc/PID/fd shows it.

  // `memory`: what memory() of the last daemon gave, or invalid for an empty map.
  static cachecore::Result<std::unique_ptr<KeptRecords>> Open(cachecore::UniqueFd memory);
  ~KeptRecords();

  int memory() const { return memory_.get(); }
  // With the changes that are not committed.
  const std::map<std::string, std::string>& records() const { return records_; }
  // Null when there is none.
  const std::string* Find(const std::string& key) const;

  // No-op where nothing changes.
  void Put(const std::string& key, std::string value);
  void Erase(const std::string& key);
  bool has_changes() const { return !changes_.empty(); }
  void Commit();

 private:
  struct Header;

  explicit KeptRecords(cachecore::UniqueFd memory) : memory_(std::move(memory)) {}
  cachecore::Status Map(bool fresh);
  cachecore::Status Load();
  char* HalfAt(size_t half) const;
  void Rewrite();

  const cachecore::UniqueFd memory_;
  char* base_ = nullptr;
  Header* header_ = nullptr;
  std::map<std::string, std::string> records_;
  std::string changes_;     // Encoded.
  size_t whole_bytes_ = 0;  // Of the map, when it was last written whole.
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_KEPT_RECORDS_H_
