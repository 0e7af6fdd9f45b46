#include "host/watch/watch_screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>

#include "cachecore/base/deadline.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::Status;

constexpr char kEnter[] = "\033[?1049h\033[?25l";  // The alternate screen, without cursor.
constexpr char kLeave[] = "\033[?25h\033[?1049l";
constexpr char kHome[] = "\033[H";
constexpr char kToEndOfLine[] = "\033[K";
constexpr char kToEndOfScreen[] = "\033[J";
// Where there is no terminal that has a size.
constexpr FrameSize kNoTerminal = {.columns = 200, .rows = 10'000};

}  // namespace

WatchScreen::WatchScreen()
    : is_terminal_(isatty(STDOUT_FILENO) != 0), reads_keys_(is_terminal_ && isatty(STDIN_FILENO)) {
  if (!is_terminal_) return;
  termios now = {};
  if (reads_keys_ && tcgetattr(STDIN_FILENO, &now) == 0) {
    before_ = now;
    now.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    now.c_cc[VSUSP] = _POSIX_VDISABLE;  // Stopped, it would leave the terminal as it is here.
    tcsetattr(STDIN_FILENO, TCSANOW, &now);
  }
  std::cout << kEnter << std::flush;
}

WatchScreen::~WatchScreen() {
  if (is_terminal_) std::cout << kLeave << std::flush;
  if (before_) tcsetattr(STDIN_FILENO, TCSANOW, &*before_);
}

FrameSize WatchScreen::size() const {
  winsize window = {};
  if (!is_terminal_) return kNoTerminal;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_row == 0) return {};
  return {.columns = window.ws_col, .rows = window.ws_row};
}

Status WatchScreen::Show(const std::vector<std::string>& lines) {
  if (is_terminal_) {
    std::cout << kHome;
    // Without a newline behind the last one, which would scroll a full screen.
    for (size_t i = 0; i < lines.size(); ++i) {
      std::cout << (i > 0 ? "\r\n" : "") << lines[i] << kToEndOfLine;
    }
    std::cout << kToEndOfScreen;
  } else {
    if (!is_first_) std::cout << "\n";
    for (const std::string& line : lines) std::cout << line << "\n";
  }
  is_first_ = false;
  std::cout.flush();
  // A write that waited is interrupted by the signal that ends this.
  if (cachecore::StopSignalled()) std::cout.clear();
  return std::cout ? Status() : Status(EIO, "the output could not be written");
}

bool WatchScreen::Pause(cachecore::Duration time) {
  const Deadline deadline(std::chrono::duration_cast<std::chrono::milliseconds>(time));
  while (true) {
    const Status waited = cachecore::WaitForFd(reads_keys_ ? STDIN_FILENO : -1, POLLIN, deadline);
    if (waited.error() == ETIMEDOUT) return true;
    if (!waited.ok()) return false;
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) != 1) reads_keys_ = false;  // Its other end is gone.
    if (key == 'q' || key == 'Q') return false;
  }
}

}  // namespace host
