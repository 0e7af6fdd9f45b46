// FakeMounter: remembers what would be mounted; fails, and waits, when told to.
//
// Threads  thread-safe.

#ifndef TESTS_SNAPSHOTTER_FAKE_MOUNTER_H_
#define TESTS_SNAPSHOTTER_FAKE_MOUNTER_H_

#include <functional>
#include <map>
#include <string>

#include "cachecore/base/mutex.h"
#include "snapshotter/image_mounter.h"

namespace snapshotter {

class FakeMounter : public ImageMounter {
 public:
  cachecore::Result<bool> IsMounted(const std::string& path) override {
    const cachecore::MutexLock lock(&mu_);
    return mounted_.contains(path);
  }
  cachecore::Status Mount(const ImageLayer& image, const std::string& path) override {
    if (during_mount) during_mount();
    const cachecore::MutexLock lock(&mu_);
    ++mounts_;
    if (!mount_status.ok()) return mount_status;
    mounted_[path] = image.blob;
    return {};
  }
  cachecore::Status Unmount(const std::string& path) override {
    const cachecore::MutexLock lock(&mu_);
    if (!unmount_status.ok()) return unmount_status;
    mounted_.erase(path);
    return {};
  }

  std::map<std::string, std::string> mounted() {
    const cachecore::MutexLock lock(&mu_);
    return mounted_;
  }
  void Reboot() {
    const cachecore::MutexLock lock(&mu_);
    mounted_.clear();
  }
  int mounts() {
    const cachecore::MutexLock lock(&mu_);
    return mounts_;
  }

  // Set while no call runs.
  std::function<void()> during_mount;
  cachecore::Status mount_status;
  cachecore::Status unmount_status;

 private:
  cachecore::Mutex mu_;
  std::map<std::string, std::string> mounted_ GUARDED_BY(mu_);  // Path -> blob.
  int mounts_ GUARDED_BY(mu_) = 0;
};

}  // namespace snapshotter

#endif  // TESTS_SNAPSHOTTER_FAKE_MOUNTER_H_
