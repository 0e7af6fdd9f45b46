#include "cli/systemd_unit.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>

#include "cachecore/status.h"
#include "cli/bounded_call.h"
#include "cli/deadline.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr std::chrono::milliseconds kSystemctlTimeout{5000};

}  // namespace

std::string DaemonUnit(const Instance& instance) {
  return "holdfastd@" + instance.name() + ".service";
}

bool SystemdRuns(const Instance& instance) {
  // Units know no other root; and see sd_booted(3).
  if (!instance.root().empty() || access("/run/systemd/system", F_OK) != 0) return false;
  // No character of an instance's name means anything to a shell.
  const std::string command =
      "systemctl show --value --property=ActiveState " + DaemonUnit(instance) + " 2>/dev/null";
  const Result<std::string> state = CallInChild(
      [&]() -> Result<std::string> {
        FILE* output = popen(command.c_str(), "re");
        if (output == nullptr) return Status::FromErrno(errno, "run systemctl");
        std::array<char, 64> line = {};
        const bool read = fgets(line.data(), line.size(), output) != nullptr;
        pclose(output);
        return std::string(read ? line.data() : "");
      },
      Deadline(kSystemctlTimeout));
  return state.ok() && !state->empty() && *state != "inactive\n" && *state != "failed\n";
}

}  // namespace cli
