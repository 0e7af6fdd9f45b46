#include "cachecore/environment/log_reopening.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <thread>
#include <utility>

namespace cachecore {

std::string LogFilePath() {
  struct stat info;
  const int flags = fcntl(STDERR_FILENO, F_GETFL);
  if (flags < 0 || (flags & O_APPEND) == 0 || fstat(STDERR_FILENO, &info) != 0) return "";
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/fd/2", path, sizeof path);
  const bool is_file = S_ISREG(info.st_mode) && info.st_nlink > 0;
  return is_file && size > 0 ? std::string(path, static_cast<size_t>(size)) : "";
}

Result<UniqueFd> OpenLogFile(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!file.valid()) return Status::FromErrno(errno, "open the log " + path);
  return file;
}

void ReopenLogOnHangup(const std::string& path,
                       std::function<Result<UniqueFd>(const std::string& path)> open) {
  if (path.empty()) return;
  sigset_t all;
  sigset_t before;
  sigset_t hangup;
  sigfillset(&all);
  sigemptyset(&hangup);
  sigaddset(&hangup, SIGHUP);
  // Blocked first: a supervisor starts us with SIGHUP ignored.  The thread takes no other signal.
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::signal(SIGHUP, SIG_DFL);
  std::thread([path, open = std::move(open), hangup] {
    for (int signal = 0; sigwait(&hangup, &signal) == 0;) {
      const Result<UniqueFd> file = open(path);
      if (!file.ok()) {
        std::fprintf(stderr, "the log goes on in the old file: %s\n",
                     file.status().message().c_str());
        continue;
      }
      dup2(file->get(), STDOUT_FILENO);
      dup2(file->get(), STDERR_FILENO);
    }
  }).detach();
  sigaddset(&before, SIGHUP);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace cachecore
