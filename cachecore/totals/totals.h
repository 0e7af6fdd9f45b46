// Totals: named numbers that only grow, in memory that outlives the process.
//
// Model    a table of names and numbers in a memory file, whose descriptor an fd store keeps: the
//          next process goes on with it.  Text takes them to a file, for a life that finds no
//          memory.  Where the table is full, a name that is new counts nothing.
// Errors   Open: the errno of making or mapping the memory; EPROTO for memory of another layout.
// Threads  thread-safe; a Count may be used by all threads at once.
// Owns     the memory; Counts must not outlive it.
// Cost     Count::Add is one atomic addition; Find takes a lock and looks through the table.
// Crash    an addition that was made is in the memory, whatever ends the process.
// See      docs/metrics.md.

#ifndef CACHECORE_TOTALS_TOTALS_H_
#define CACHECORE_TOTALS_TOTALS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

// One number of a table, or of none: then nothing is counted.
class Count {
 public:
  Count() = default;
  explicit Count(std::atomic<uint64_t>* at) : at_(at) {}
  void Add(uint64_t more) const {
    if (at_ != nullptr) at_->fetch_add(more, std::memory_order_relaxed);
  }
  // For one who counts what belongs to it by itself, and is the only one to do so.
  void Set(uint64_t value) const {
    if (at_ != nullptr) at_->store(value, std::memory_order_relaxed);
  }
  uint64_t value() const { return at_ == nullptr ? 0 : at_->load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t>* at_ = nullptr;
};

class Totals {
 public:
  static constexpr char kMemoryName[] = "holdfast-totals";  // As /proc/PID/fd shows it.
  static constexpr size_t kMax = 2048;
  static constexpr size_t kMaxNameSize = 311;

  // `memory`: what memory() of the last process gave, or invalid for a new table.
  static Result<std::unique_ptr<Totals>> Open(UniqueFd memory);
  ~Totals();
  Totals(const Totals&) = delete;
  Totals& operator=(const Totals&) = delete;

  int memory() const { return memory_.get(); }
  // The number of this name, which begins at 0.
  Count Find(const std::string& name) EXCLUDES(mu_);
  // The same where there may be no table.
  static Count Find(Totals* totals, const std::string& name) {
    return totals == nullptr ? Count() : totals->Find(name);
  }
  std::map<std::string, uint64_t> All() const;
  // The whole table as a text, and back: each number of the text is added.  EBADMSG, and nothing is
  // added, for what Text has not made.
  std::string Text() const;
  Status Add(const std::string& text) EXCLUDES(mu_);

 private:
  struct Header;
  struct Slot;

  explicit Totals(UniqueFd memory) : memory_(std::move(memory)) {}
  Status Map(bool is_new);
  Slot* SlotAt(size_t index) const;

  const UniqueFd memory_;
  char* base_ = nullptr;
  Header* header_ = nullptr;
  Mutex mu_;  // Of those who add a name.
};

// How long things took, as a histogram of Prometheus: a number for each bucket, and their sum.
class TimeTotals {
 public:
  // The longest of each bucket but the last, which has no limit.
  static constexpr std::array<double, 12> kSeconds = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3,
                                                      1,     3,     10,   30,   100, 300};

  TimeTotals() = default;
  TimeTotals(Totals* totals, const std::string& name);
  void Note(Duration took) const;
  // The names of the numbers of the histogram `name`: of a bucket, and of the sum in microseconds.
  static std::string BucketName(const std::string& name, size_t bucket);
  static std::string SumName(const std::string& name) { return name + "_us"; }
  // The bucket that a time belongs to.
  static size_t BucketOf(Duration took);

 private:
  std::array<Count, kSeconds.size() + 1> buckets_;
  Count sum_us_;
};

}  // namespace cachecore

#endif  // CACHECORE_TOTALS_TOTALS_H_
