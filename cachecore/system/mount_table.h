// The kernel's mount tables: of this process's mount namespace, and of every other one that a
// process of this machine is in.
//
// Model    A mount is known by its id, which it keeps when it or a directory above it is moved or
//          renamed; a file system is known by its device number, which all its mounts share.  Where
//          a mount is at the moment is a property of it, not its name.
// Errors   every Status names the path.
// Threads  thread-safe: no state.
// See      proc_pid_mountinfo(5), libmount

#ifndef CACHECORE_SYSTEM_MOUNT_TABLE_H_
#define CACHECORE_SYSTEM_MOUNT_TABLE_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace cachecore {

struct MountEntry {
  std::string device;  // "MAJOR:MINOR" of the file system.
  std::string mount_point;
  std::string root;  // The directory of the file system that is shown; "/" but for bind mounts.
  std::string type;
  std::string source;
  std::string options = "";  // The file system's own.
  int id = 0;                // Of the mount; no other one on this machine has it meanwhile.
  int parent = 0;            // The id of the mount that it is on.
  // Of mounts with one peer group a change reaches all; a mount follows its master's.  0: none.
  int peer_group = 0;
  int master = 0;
};

// Another mount namespace, or another root directory, as one of its processes sees it.
struct ForeignTable {
  pid_t pid = 0;
  std::vector<MountEntry> table;
};

// Lines that can't be read are passed over.
std::vector<MountEntry> ParseMountTable(const std::string& mountinfo);
// Of this process's mount namespace, in order of mounting.
Result<std::vector<MountEntry>> ReadMountTable();
// Of a process's; ENOENT once it is gone.
Result<std::vector<MountEntry>> ReadMountTable(pid_t pid);
// Of every mount namespace but this process's, as far as processes that can be seen are in one.
std::vector<ForeignTable> ReadForeignTables();
// The topmost mount at exactly `mount_point`, or null.
const MountEntry* FindMount(const std::vector<MountEntry>& table, const std::string& mount_point);
// The mount with this id, or null.
const MountEntry* FindMountById(const std::vector<MountEntry>& table, int id);
// The mount that `path` is on, by text: the topmost one at the longest prefix of it; or null.
const MountEntry* FindMountAbove(const std::vector<MountEntry>& table, const std::string& path);
// The id of the mount that an open file is on.  Asks no file system.
Result<int> MountIdOf(int fd);

// The absolute path with every symbolic link but the last component's resolved.  What is mounted at
// `path` itself is not accessed, so that this returns also on a dead file system.
Result<std::string> PathWithoutEntering(const std::string& path);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_MOUNT_TABLE_H_
