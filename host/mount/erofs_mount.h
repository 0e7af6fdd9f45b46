// ErofsMount: mounts an EROFS image by `fsid`, as kernels with on-demand cachefiles did.
//
// Model    the image is the object F of volume "erofs,F", or of "erofs,D" with a domain D, which a
//          program of the kernel's cachefiles interface serves.  Further objects of the volume are
//          the image's extra devices.  Mounts of one domain share these; the image itself is
//          mounted once.
// Errors   EBUSY: the fsid is mounted; EEXIST: it is mounted in this domain; ENOBUFS: the client's
//          directory has no room; EIO: the client refused.  Each message names the fsid.
// Threads  one thread only.
// Crash    killed half-way it leaves claims, which the daemon ends later, and nothing mounted.
// See      docs/cachefiles-compat.md; docs/protocol.md "The control socket".

#ifndef HOST_MOUNT_EROFS_MOUNT_H_
#define HOST_MOUNT_EROFS_MOUNT_H_

#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"
#include "host/mount/image_mount.h"
#include "host/mount/image_mount_options.h"

namespace host {

// What `-o` asks for.
struct ErofsMountWords {
  std::string fsid;
  std::string domain;                // "": none.
  std::vector<std::string> devices;  // In the order of the image's device table.
  std::string instance;              // "": not given.
  std::string root;                  // "": not given.
  ImageMountOptions rest;

  // EINVAL names the word; a fsid is needed.
  static cachecore::Result<ErofsMountWords> Parse(const std::string& text);
};

class ErofsMount {
 public:
  ErofsMount(Instance instance, std::string mount_point, ErofsMountWords words,
             cachecore::Deadline deadline);

  // Returns once it is mounted, or with everything undone.
  cachecore::Status Run();

 private:
  cachecore::Status CheckDevice() const;
  // Where the object can be read.
  cachecore::Result<std::string> Acquire(const std::string& object, const char* use);
  cachecore::Status Explain(const std::string& object, const cachecore::Status& why) const;
  // What the program that is to answer does; for messages.
  std::string ClientState() const;
  // The names of the extra devices: those given, or the tags in the image.
  cachecore::Result<std::vector<std::string>> DevicesOf(const std::string& image) const;
  cachecore::Status Mount(const std::string& image);
  cachecore::Status Tell(int mount);
  void Undo();

  const Instance instance_;
  const std::string mount_point_;
  ErofsMountWords words_;
  const cachecore::Deadline deadline_;
  const std::string volume_;
  std::vector<std::string> acquired_;  // The image first.
};

}  // namespace host

#endif  // HOST_MOUNT_EROFS_MOUNT_H_
