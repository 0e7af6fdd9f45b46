// What /proc says of a thread, for holdfastd and holdfast-injectd.
//
// Errors   a thread that has ended has none of it.
// Threads  thread-safe: no state.

#ifndef FUSEFS_INJECT_PROC_FILES_H_
#define FUSEFS_INJECT_PROC_FILES_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

namespace fusefs {

inline std::string ProcPath(pid_t thread, const std::string& name) {
  return "/proc/" + std::to_string(thread) + "/" + name;
}

inline bool IsInOurUserNamespace(pid_t thread) {
  struct stat its;
  struct stat ours;
  return stat(ProcPath(thread, "ns/user").c_str(), &its) == 0 &&
         stat("/proc/self/ns/user", &ours) == 0 && its.st_ino == ours.st_ino;
}

// The word after `name` of /proc/THREAD/status; "" when there is none.
inline std::string StatusWord(pid_t thread, const std::string& name) {
  std::ifstream words(ProcPath(thread, "status"));
  for (std::string word; words >> word;) {
    if (word == name && words >> word) return word;
  }
  return "";
}

// 0: it is not traced.
inline pid_t TracerOf(pid_t thread) { return std::atoi(StatusWord(thread, "TracerPid:").c_str()); }

// The process that a thread is of; 0 once it is gone.
inline pid_t ProcessOf(pid_t thread) { return std::atoi(StatusWord(thread, "Tgid:").c_str()); }

// As capable(CAP_SYS_ADMIN): in our own user namespace.
inline bool MayAdministrate(pid_t thread) {
  constexpr unsigned kCapSysAdmin = 21;
  if (thread == 0 || !IsInOurUserNamespace(thread)) return false;
  const std::string effective = StatusWord(thread, "CapEff:");
  return (std::strtoull(effective.c_str(), nullptr, 16) >> kCapSysAdmin & 1) != 0;
}

inline bool AreInOneMountNamespace(pid_t one, pid_t other) {
  struct stat first;
  struct stat second;
  return stat(ProcPath(one, "ns/mnt").c_str(), &first) == 0 &&
         stat(ProcPath(other, "ns/mnt").c_str(), &second) == 0 && first.st_ino == second.st_ino;
}

struct MemoryRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

// The pages of its vdso, behind whose image injected code lies.
inline std::optional<MemoryRange> FindVdso(pid_t thread) {
  std::ifstream lines(ProcPath(thread, "maps"));
  for (std::string line; std::getline(lines, line);) {
    MemoryRange range;
    if (line.ends_with("[vdso]") &&
        std::sscanf(line.c_str(), "%lx-%lx", &range.begin, &range.end) == 2) {
      return range;
    }
  }
  return std::nullopt;
}

}  // namespace fusefs

#endif  // FUSEFS_INJECT_PROC_FILES_H_
