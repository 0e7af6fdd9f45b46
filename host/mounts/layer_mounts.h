// Layer mounts: the EROFS mounts that the overlays of images of several layers lie on.
//
// Model    each layer is mounted once, in a directory of LayersDir that its object names, with a
//          record like any mount's.  A layer belongs to every overlay whose record lists its mount
//          point, from the overlay's claim on; it goes with the last of them.
// Errors   what cannot be taken away stays recorded, and goes with the next overlay.
// Threads  thread-safe: no state.
// Crash    layers that a killed command has mounted are listed by no living overlay: the next
//          command that takes an overlay away, or stops the instance, takes them too.
// See      docs/semantics.md "Images in registries"

#ifndef HOST_MOUNTS_LAYER_MOUNTS_H_
#define HOST_MOUNTS_LAYER_MOUNTS_H_

#include <string>
#include <vector>

#include "host/instance/instance.h"
#include "host/mounts/mount_record.h"
#include "host/mounts/own_mounts.h"

namespace host {

// Of the directory beside a layer's place that is locked while the layer is mounted.
inline constexpr char kLayerLockEnding[] = ".lock";

// Its last part is short, so that a kernel that takes one option of 255 bytes takes many of them.
std::string LayerPlace(const Instance& instance, const std::string& volume,
                       const std::string& object);
// Removes the layers of the overlays among them: what is left was asked for.
void HideLayers(std::vector<OwnMount>* mounts);
void HideLayers(std::vector<MountRecord>* records);
// Removes the layers that no overlay among them lists: they go with the next ReleaseUnusedLayers.
void HideUnusedLayers(const Instance& instance, std::vector<MountRecord>* records);
// The mount points that show it: its own, or those of the overlays among `records` that it is in.
std::vector<std::string> ShownAt(const MountRecord& record,
                                 const std::vector<MountRecord>& records);
// The records of what a mount shows: those of its layers, or its own.
std::vector<MountRecord> ImagesOf(const Instance& instance, const MountRecord& record);
// Takes away the layers that no living overlay lists.  Where processes go on using an overlay
// without its mount, `used` is its record: the objects of its layers are still to be found.
// REQUIRES: LockInstance.
void ReleaseUnusedLayers(const Instance& instance, const MountRecord* used = nullptr);

}  // namespace host

#endif  // HOST_MOUNTS_LAYER_MOUNTS_H_
