// LayerTree: the directory that a container image's layers are applied to, one entry at a time.
//
// Model    an entry's name is taken below the tree's root, whatever it says: ".." ends there, and
//          so do symlinks, which are followed where they stand in the place of a directory.  What
//          is there and leads to no directory, a file of a lower layer for example, is replaced by
//          one.  A whiteout (.wh.NAME, .wh..wh..opq) removes what lower layers have put there,
//          never what its own layer has.  A directory that no entry names has mode 0755, root and
//          the time 0; what happens below a directory leaves its time alone.
// Errors   EINVAL an entry that can be no file; the errno of what the file system refuses.
// Threads  one thread only.
// Cost     about ten system calls an entry; it remembers the names of the layer in hand.
// See      the OCI image specification, layer.md; docs/image-format.md

#ifndef HOST_BUILD_LAYER_TREE_H_
#define HOST_BUILD_LAYER_TREE_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <ctime>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace host {

struct LayerEntry {
  std::string name;    // As the archive has it.
  mode_t mode = 0;     // Type and permissions; a hard link has no type.
  std::string target;  // Of a symlink; of a hard link the name of another entry.
  bool is_hard_link = false;
  uid_t uid = 0;
  gid_t gid = 0;
  timespec mtime = {};
  dev_t device = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;
};

class LayerTree {
 public:
  // Writes a regular file's contents.
  using Writer = std::function<cachecore::Status(int fd)>;

  // Makes `directory`.
  static cachecore::Result<std::unique_ptr<LayerTree>> Make(const std::string& directory);

  void BeginLayer() { made_.clear(); }
  cachecore::Status Put(const LayerEntry& entry, const Writer& write);

 private:
  // A place where an entry can be: a directory and a name in it.
  struct Place {
    cachecore::UniqueFd directory;  // O_PATH
    ino_t inode = 0;                // The directory's.
    timespec time = {};             // The directory's, before anything was changed in it.
    std::string name;

    std::string Path() const;  // Through /proc, so that every system call can take it.
    void RestoreTime() const;
  };
  using Names = std::vector<std::string>;

  explicit LayerTree(cachecore::UniqueFd root) : root_(std::move(root)) {}

  // The place of the last of `names`.  Its directory is made, or, unless `makes`, is ENOENT.
  cachecore::Result<Place> FindPlace(const Names& names, bool makes);
  // The directory that the first `count` of `names` lead to.
  cachecore::Result<cachecore::UniqueFd> OpenDirectory(const Names& names, size_t count) const;
  cachecore::Status MakeDirectory(const Names& names, size_t count);
  cachecore::Status WhiteOut(const Names& names);
  cachecore::Status PutRoot(const LayerEntry& entry);
  cachecore::Status PutAt(const Place& place, const LayerEntry& entry, const Writer& write);
  cachecore::Status Link(const Place& place, const LayerEntry& entry);
  // Makes the file itself, without what SetMetadata gives it.
  cachecore::Status Create(const Place& place, const LayerEntry& entry, const Writer& write) const;
  // Removes a name and what is below it, but, unless `all`, what this layer has made.  Whether it
  // is still there.
  cachecore::Result<bool> Remove(int directory, ino_t inode, const std::string& name, bool all);

  const cachecore::UniqueFd root_;
  std::set<std::pair<ino_t, std::string>> made_;  // By this layer: directory and name.
};

}  // namespace host

#endif  // HOST_BUILD_LAYER_TREE_H_
