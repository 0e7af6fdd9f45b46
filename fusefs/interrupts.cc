#include "fusefs/interrupts.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cachecore/unique_fd.h"

namespace fusefs {
namespace {

constexpr std::chrono::milliseconds kLookAgain(10);

}  // namespace

bool IsBeingKilled(pid_t tid) {
  // 0 is a thread that our pid namespace cannot name: let it go rather than hold it.
  if (tid == 0) return true;
  const std::string path = "/proc/" + std::to_string(tid) + "/status";
  const cachecore::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno == ENOENT;
  char text[8192];
  const ssize_t got = read(fd.get(), text, sizeof(text) - 1);
  if (got <= 0) return true;  // ESRCH: it has gone meanwhile.
  text[got] = '\0';
  for (const char* field : {"\nSigPnd:", "\nShdPnd:"}) {
    const char* at = std::strstr(text, field);
    if (at == nullptr) continue;
    const uint64_t pending = std::strtoull(at + std::strlen(field), nullptr, 16);
    if ((pending >> (SIGKILL - 1)) & 1) return true;
  }
  return false;
}

Interrupts::Interrupts(cachecore::Cache* cache) : cache_(cache), thread_([this] { Run(); }) {}

Interrupts::~Interrupts() {
  {
    cachecore::MutexLock lock(&mu_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

uint64_t Interrupts::Watch(pid_t tid) {
  cachecore::MutexLock lock(&mu_);
  const uint64_t watch = next_watch_++;
  watched_[watch].tid = tid;
  return watch;
}

void Interrupts::SetTicket(uint64_t watch, cachecore::ReadTicket ticket) {
  cachecore::MutexLock lock(&mu_);
  auto it = watched_.find(watch);
  if (it != watched_.end()) it->second.ticket = std::move(ticket);
}

void Interrupts::Unwatch(uint64_t watch) {
  cachecore::MutexLock lock(&mu_);
  auto it = watched_.find(watch);
  if (it == watched_.end()) return;
  if (it->second.interrupted) --interrupted_;
  watched_.erase(it);
}

void Interrupts::Interrupt(uint64_t watch) {
  {
    cachecore::MutexLock lock(&mu_);
    auto it = watched_.find(watch);
    if (it == watched_.end() || it->second.interrupted) return;
    it->second.interrupted = true;
    ++interrupted_;
  }
  changed_.NotifyAll();
}

void Interrupts::Run() {
  while (true) {
    std::vector<cachecore::ReadTicket> killed;
    {
      cachecore::MutexLock lock(&mu_);
      while (!stopping_ && interrupted_ == 0) changed_.Wait(&mu_);
      if (stopping_) return;
      for (const auto& [watch, read] : watched_) {
        if (read.interrupted && read.ticket && IsBeingKilled(read.tid)) {
          killed.push_back(read.ticket);
        }
      }
    }
    for (const cachecore::ReadTicket& read : killed) {
      cache_->Withdraw(read, cachecore::Status(EINTR, "the reader was killed"));
    }
    cachecore::MutexLock lock(&mu_);
    if (!stopping_ && interrupted_ > 0) changed_.WaitFor(&mu_, kLookAgain);
  }
}

}  // namespace fusefs
