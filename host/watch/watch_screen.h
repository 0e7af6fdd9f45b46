// WatchScreen: frames on a terminal, each in place of the last one, or one below the other.
//
// Model    on a terminal: the alternate screen, without cursor and echo, until `q` or Ctrl-C; the
//          destructor gives the terminal back as it was.  Elsewhere: lines, no escape codes.
// Threads  one thread only.  One at a time.

#ifndef HOST_WATCH_WATCH_SCREEN_H_
#define HOST_WATCH_WATCH_SCREEN_H_

#include <termios.h>

#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "host/watch/status_watch.h"

namespace host {

class WatchScreen {
 public:
  WatchScreen();
  ~WatchScreen();
  WatchScreen(const WatchScreen&) = delete;
  WatchScreen& operator=(const WatchScreen&) = delete;

  // As the terminal has it now.
  FrameSize size() const;
  // EIO when stdout takes no more.
  cachecore::Status Show(const std::vector<std::string>& lines);
  // False: `q`, or a signal that asks to stop.
  bool Pause(cachecore::Duration time);

 private:
  const bool is_terminal_;
  bool reads_keys_;
  std::optional<termios> before_;
  bool is_first_ = true;
};

}  // namespace host

#endif  // HOST_WATCH_WATCH_SCREEN_H_
