// LayeredMount: the parts of mounting an image of several layers.
//
// Model    a layer is mounted once for all overlays, at the place that its object names
//          (host/mounts/layer_mounts.h), by whichever command is the first to want it.
// Errors   ETIMEDOUT names what was waited for; those of MountOperation, for a layer.
// Threads  one thread only.
// Crash    see host/mounts/layer_mounts.h: what is claimed by no overlay goes.

#ifndef HOST_MOUNT_LAYERED_MOUNT_H_
#define HOST_MOUNT_LAYERED_MOUNT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"
#include "host/mount/mount_operation.h"
#include "host/mounts/mount_record.h"

namespace host {

// What `record` says of an overlay of these layers, but for where it is.
void DescribeOverlay(const Instance& instance, const std::vector<MountRequest::Layer>& layers,
                     MountRecord* record);
// EINVAL for what is asked of one EROFS image, or of a file.
cachecore::Status CheckOverlayOptions(const MountRequest& request);
// Mounts layer `index` of an image at `place`, unless it is there.  REQUIRES: the record of its
// overlay is written, and lists it.
cachecore::Status MountLayer(const MountRequest& image, size_t index, const std::string& place,
                             const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_MOUNT_LAYERED_MOUNT_H_
