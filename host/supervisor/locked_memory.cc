#include "host/supervisor/locked_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>

namespace host {
namespace {

// Whose file names begin with these.
constexpr std::string_view kRuntimes[] = {"ld-linux", "libc.so", "libc-",       "libgcc_s.so",
                                          "libm.so",  "libm-",   "libstdc++.so"};

bool IsNeeded(const std::string& path, const std::string& own_program) {
  if (path.empty() || path == "[heap]" || path == "[stack]" || path == own_program) return true;
  const std::string name = path.substr(path.rfind('/') + 1);
  for (const std::string_view runtime : kRuntimes) {
    if (name.starts_with(runtime)) return true;
  }
  return false;
}

}  // namespace

void LockOwnMemory() {
  std::error_code error;
  const std::string own_program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    // "begin-end rwxp offset device inode      path"
    std::istringstream fields(line);
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::string access, offset, device, inode, path;
    fields >> std::hex >> begin >> dash >> end >> access >> offset >> device >> inode >> std::ws;
    std::getline(fields, path);
    if (!access.starts_with('r') || !IsNeeded(path, own_program)) continue;
    // A failure, as at a guard page or a low limit, leaves that range as it was.
    mlock(reinterpret_cast<const void*>(begin), end - begin);
  }
}

}  // namespace host
