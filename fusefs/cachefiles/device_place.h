// DevicePlace: the path that the cachefiles device is mounted on.
//
// Model    mounted on a file that is there, or on one that is made and recorded (MadeFile) and
//          removed when the device ends.  A file that was there before is never removed.
// Errors   Mount: one sentence naming the path.
// Threads  one at a time.
// Owns     the mount, while it is ours, and the made file.
// Crash    the next daemon, or `holdfast stop`, removes the made file by its record.
// See      docs/recovery.md "The cachefiles device"

#ifndef FUSEFS_CACHEFILES_DEVICE_PLACE_H_
#define FUSEFS_CACHEFILES_DEVICE_PLACE_H_

#include <sys/types.h>

#include <optional>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/system/made_file.h"
#include "fusefs/cachefiles/device_memory.h"

namespace fusefs {

class DevicePlace {
 public:
  DevicePlace(std::string path, const std::string& run_dir);

  // Mounts `fuse`, and puts the place into the memory.  What an earlier daemon has left is taken
  // away first.
  cachecore::Status Mount(int fuse, DeviceMemory* memory);
  // Goes on with the mount of the last daemon.
  void Resume(const MountRecord& mounted);
  // Ends the mount, unless another daemon's is there by now, and removes the made file.
  // `is_cut_off`: the mount was unmounted or aborted.
  void End(bool is_cut_off);
  // The file system of our mount.
  std::optional<dev_t> device() const { return device_; }

  // Takes away what an earlier daemon with this run directory has left.
  static void EndEarlier(const std::string& run_dir);

 private:
  cachecore::Status Obtain();

  const std::string path_;
  const std::string run_dir_;
  const cachecore::MadeFile made_;
  bool is_older_ = false;  // Made by a version that kept no record of it.
  std::optional<dev_t> device_;
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_DEVICE_PLACE_H_
