// OwnDirectories: keeps mounts off the directories and files that instances need.
//
// Model    A directory is known by device and inode, so that bind mounts and links make no
//          difference: a mount on a bind mount's directory is passed on to the original where
//          mounts are shared.
// Errors   EBUSY names the mount point, what it would hide, and the cure.
// Threads  thread-safe: no state.
// See      docs/semantics.md "What is mounted"

#ifndef HOST_MOUNTS_OWN_DIRECTORIES_H_
#define HOST_MOUNTS_OWN_DIRECTORIES_H_

#include <nlohmann/json.hpp>
#include <string>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

// Refuses a mount point that is, or is above, or is inside a run, state, cache or log directory of
// `instance`, which would start with its cache in `cache_dir`, or of another one beneath its root;
// and one above a file of this machine that `url`, what is to be mounted there, or another mount
// beneath that root is fetched with.  `directory` is open on the mount point, whose path is `path`;
// `files` are the "files" of the source of `url`.
cachecore::Status CheckHidesNothing(const Instance& instance, const std::string& cache_dir,
                                    const std::string& url, const nlohmann::json& files,
                                    int directory, const std::string& path);

}  // namespace host

#endif  // HOST_MOUNTS_OWN_DIRECTORIES_H_
