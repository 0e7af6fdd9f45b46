// ImageMounter: mounts the images of layers, by the command `holdfast`.
//
// Model    the mounts belong to a Holdfast instance, not to the process that asked for them, so its
//          death costs none.
// Errors   what the command says with --json; ETIMEDOUT when it did not end.  None of those that
//          containerd would take for an answer about the snapshot.
// Threads  thread-safe; a call lasts as long as the registry takes, up to the time limit.
// See      holdfast(1)

#ifndef SNAPSHOTTER_IMAGE_MOUNTER_H_
#define SNAPSHOTTER_IMAGE_MOUNTER_H_

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/status.h"
#include "snapshotter/snapshot_record.h"

namespace snapshotter {

class ImageMounter {
 public:
  virtual ~ImageMounter() = default;
  virtual cachecore::Result<bool> IsMounted(const std::string& path) = 0;
  virtual cachecore::Status Mount(const ImageLayer& image, const std::string& path) = 0;
  virtual cachecore::Status Unmount(const std::string& path) = 0;
};

struct HoldfastOptions {
  std::string program;   // The command's path.
  std::string instance;  // "": its default.
  std::string root;      // "": its default.
  std::string auth_file;
  std::set<std::string> plain_http;                         // Registries.
  std::map<std::string, std::vector<std::string>> mirrors;  // Of a registry, tried in order.
  std::chrono::milliseconds timeout{30000};                 // For a mount as a whole.
};

class HoldfastMounter : public ImageMounter {
 public:
  explicit HoldfastMounter(HoldfastOptions options) : options_(std::move(options)) {}

  cachecore::Result<bool> IsMounted(const std::string& path) override;
  cachecore::Status Mount(const ImageLayer& image, const std::string& path) override;
  cachecore::Status Unmount(const std::string& path) override;

  // The command line; public for its test.
  std::vector<std::string> MountCommand(const ImageLayer& image, const std::string& path) const;

 private:
  std::vector<std::string> Command(const char* verb) const;
  cachecore::Status Run(const std::vector<std::string>& argv) const;

  const HoldfastOptions options_;
};

}  // namespace snapshotter

#endif  // SNAPSHOTTER_IMAGE_MOUNTER_H_
