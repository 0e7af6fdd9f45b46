// CommandState: the text commands of the device, as the kernel's parser takes them.
//
// Model    one command a write.  The checks and their order are the kernel's: length, NUL bytes,
//          the first newline ends the command, then the word, then its argument with its trailing
//          white space.  What a command sets is kept here; what it does goes to CommandActions.
// Errors   0, or a negative errno; a refused command changes nothing, except that a failed `bind
//          ondemand` leaves the on-demand mode on, as in the kernel.
// Threads  thread-compatible.  No I/O of its own.
// See      docs/cachefiles-compat.md.

#ifndef FUSEFS_CACHEFILES_COMMAND_STATE_H_
#define FUSEFS_CACHEFILES_COMMAND_STATE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cachecore/protocol/wire.h"

namespace fusefs {

// Free space of the cache's file system, in percent, as the kernel's culling has it.
struct CullLimits {
  uint64_t run = 7;
  uint64_t cull = 5;
  uint64_t stop = 1;
};

// What the commands do beyond this class.  Each returns 0 or a negative errno.
class CommandActions {
 public:
  virtual ~CommandActions() = default;
  virtual int Bind(const std::string& directory, bool ondemand) = 0;
  virtual int Copen(const cachecore::wire::CopenCommand& command) = 0;
  virtual int Restore() = 0;
  // REQUIRES: bound; `name` has no slash.
  virtual int Cull(const std::string& name) = 0;
  virtual int InUse(const std::string& name) = 0;
};

class CommandState {
 public:
  // Carries out one write.  Returns its size, or a negative errno.
  int64_t Execute(std::string_view text, CommandActions* actions);

  // All of it, for SetText of the next daemon.
  std::string Text() const;
  // False, and unchanged, when `text` is none that Text makes.  "" is the state at first.
  bool SetText(const std::string& text);

  bool is_bound() const { return bound_; }
  bool is_ondemand() const { return ondemand_; }
  // As they were given; the default tag from bind on.  "" before.
  std::string directory() const { return directory_.value_or(""); }
  std::string tag() const { return tag_.value_or(""); }
  // Of inodes and of blocks, as `bind` has found them: as in the kernel, a limit that is given
  // later is taken and has no effect.
  const CullLimits& file_limits() const { return bound_ ? bound_files_ : files_; }
  const CullLimits& block_limits() const { return bound_ ? bound_blocks_ : blocks_; }

 private:
  int SetLimit(const std::string& word, const std::string& argument);
  int SetOnce(const std::string& argument, std::optional<std::string>* text);
  int Bind(const std::string& argument, CommandActions* actions);
  int Copen(const std::string& argument, CommandActions* actions);
  int LookUp(bool cull, const std::string& argument, CommandActions* actions);
  int Run(const std::string& word, const std::string& argument, CommandActions* actions);

  CullLimits files_;
  CullLimits blocks_;
  CullLimits bound_files_;
  CullLimits bound_blocks_;
  std::optional<std::string> directory_;
  std::optional<std::string> tag_;
  bool bound_ = false;
  bool ondemand_ = false;
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_COMMAND_STATE_H_
