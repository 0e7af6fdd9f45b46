#include "cachecore/system/program_help.h"

#include <gflags/gflags.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

DECLARE_bool(help);
DECLARE_bool(version);

namespace cachecore {

bool PrintHelpIfAsked(const std::string& source_folder) {
  if (FLAGS_version) {
    std::printf("%s %s\n", gflags::ProgramInvocationShortName(), gflags::VersionString());
    return true;
  }
  if (!FLAGS_help) return false;
  std::printf("%s\n\nOptions:\n", gflags::ProgramUsage());
  std::vector<gflags::CommandLineFlagInfo> flags;
  gflags::GetAllFlags(&flags);
  for (const gflags::CommandLineFlagInfo& flag : flags) {
    if (flag.filename.find(source_folder) == std::string::npos) continue;
    const std::string value = flag.default_value.empty() ? "\"\"" : flag.default_value;
    // gflags takes both spellings; this is the one of all programs here.
    std::string name = flag.name;
    std::replace(name.begin(), name.end(), '_', '-');
    std::printf("  --%s\n      %s (default %s)\n", name.c_str(), flag.description.c_str(),
                value.c_str());
  }
  std::printf("  --v\n      log more the higher the number (default 0)\n");
  std::printf("  --help, --version\n");
  return true;
}

}  // namespace cachecore
