// The kernel's mount table, and the path of a mount point as the table writes it.
//
// Errors   every Status names the path.
// Threads  thread-safe: no state.
// See      proc_pid_mountinfo(5)

#ifndef CLI_MOUNT_TABLE_H_
#define CLI_MOUNT_TABLE_H_

#include <string>
#include <vector>

#include "cachecore/status.h"

namespace cli {

struct MountEntry {
  std::string device;  // "MAJOR:MINOR".
  std::string mount_point;
  std::string root;  // The directory of the file system that is shown; "/" but for bind mounts.
  std::string type;
  std::string source;
  std::string options = "";  // The file system's own.
};

// Lines that can't be read are passed over.
std::vector<MountEntry> ParseMountTable(const std::string& mountinfo);
// Of this process's mount namespace, in order of mounting.
cachecore::Result<std::vector<MountEntry>> ReadMountTable();
// The topmost mount at exactly `mount_point`, or null.
const MountEntry* FindMount(const std::vector<MountEntry>& table, const std::string& mount_point);

// The absolute path with every symbolic link but the last component's resolved.  What is mounted at
// `path` itself is not asked, so that this returns also where a dead file system is.
cachecore::Result<std::string> PathWithoutEntering(const std::string& path);

}  // namespace cli

#endif  // CLI_MOUNT_TABLE_H_
