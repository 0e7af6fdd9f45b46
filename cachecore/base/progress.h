// Progress: how far a long command is, on stderr: a bar on a terminal, elsewhere a line for each
// step.
//
// Units    bytes.
// Threads  one thread only.

#ifndef CACHECORE_BASE_PROGRESS_H_
#define CACHECORE_BASE_PROGRESS_H_

#include <cstdint>
#include <string>

#include "cachecore/base/clock.h"

namespace cachecore {

// "1.5 MiB".
std::string BytesText(uint64_t bytes);

class Progress {
 public:
  // A bar when stderr is a terminal.
  Progress();
  explicit Progress(bool is_terminal) : is_terminal_(is_terminal) {}
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Begins a step; `total` may be 0 for unknown.
  void Begin(const std::string& step, uint64_t total);
  void At(uint64_t done);
  // Ends the step; `result` is what there is to say of it.
  void End(const std::string& result);
  // Takes away what is drawn of an unfinished step.
  void Clear();

 private:
  void Draw(uint64_t done) const;

  const bool is_terminal_;
  std::string step_;
  uint64_t total_ = 0;
  Duration began_{};
  Duration drawn_{};
};

}  // namespace cachecore

#endif  // CACHECORE_BASE_PROGRESS_H_
