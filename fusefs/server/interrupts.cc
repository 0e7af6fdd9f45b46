#include "fusefs/server/interrupts.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cachecore/base/unique_fd.h"

namespace fusefs {
namespace {

constexpr std::chrono::milliseconds kLookAgain(10);
// Resent reads are looked at in every so many rounds: there may be thousands of them.
constexpr int kResentRounds = 10;

}  // namespace

bool IsBeingKilled(pid_t tid) {
  // 0 is a thread that our pid namespace cannot name: let it go rather than hold it.
  if (tid == 0) return true;
  const std::string path = "/proc/" + std::to_string(tid) + "/status";
  const cachecore::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno == ENOENT;
  char text[8192];
  const ssize_t got = read(fd.get(), text, sizeof(text) - 1);
  if (got <= 0) return true;  // ESRCH: the thread has ended.
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

Interrupts::~Interrupts() { Stop(); }

void Interrupts::Stop() {
  if (!thread_.joinable()) return;
  {
    cachecore::MutexLock lock(&mu_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

uint64_t Interrupts::Watch(pid_t tid, bool resent) {
  cachecore::MutexLock lock(&mu_);
  const uint64_t watch = next_watch_++;
  watched_.emplace(watch, Watched{tid, resent, false, std::nullopt});
  if (resent && ++resent_ == 1) changed_.NotifyAll();
  return watch;
}

void Interrupts::SetTicket(uint64_t watch, cachecore::WaitTicket ticket) {
  cachecore::MutexLock lock(&mu_);
  auto it = watched_.find(watch);
  if (it != watched_.end()) it->second.ticket = std::move(ticket);
}

void Interrupts::Unwatch(uint64_t watch) {
  cachecore::MutexLock lock(&mu_);
  auto it = watched_.find(watch);
  if (it == watched_.end()) return;
  if (it->second.interrupted) --interrupted_;
  if (it->second.resent) --resent_;
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
  for (int round = 0;; round = (round + 1) % kResentRounds) {
    std::vector<std::pair<pid_t, cachecore::WaitTicket>> suspects;
    {
      cachecore::MutexLock lock(&mu_);
      while (!stopping_ && interrupted_ == 0 && resent_ == 0) changed_.Wait(&mu_);
      if (stopping_) return;
      for (const auto& [watch, read] : watched_) {
        // A resent read of a thread without a known id may be any thread's: its wait goes on.
        const bool look_unasked = read.resent && read.tid != 0 && round == 0;
        if (read.ticket && (read.interrupted || look_unasked)) {
          suspects.emplace_back(read.tid, *read.ticket);
        }
      }
    }
    std::vector<cachecore::WaitTicket> killed;
    for (auto& [tid, ticket] : suspects) {
      if (IsBeingKilled(tid)) killed.push_back(std::move(ticket));
    }
    for (const cachecore::WaitTicket& ticket : killed) {
      cache_->Withdraw(ticket, cachecore::Status(EINTR, "the reader was killed"));
    }
    cachecore::MutexLock lock(&mu_);
    if (!stopping_ && interrupted_ + resent_ > 0) changed_.WaitFor(&mu_, kLookAgain);
  }
}

}  // namespace fusefs
