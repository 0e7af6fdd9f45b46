#include "host/mount/layered_mount.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "cachecore/base/digest.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "cachecore/system/mount_table.h"
#include "host/images/source_files.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/own_mounts.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::FindMount;
using cachecore::LockDirectory;
using cachecore::MakeDirectories;
using cachecore::MakePrivateDirectory;
using cachecore::MountEntry;
using cachecore::ReadMountTable;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using cachecore::WriteFileAtomically;

constexpr size_t kNameDigits = 32;
// The fetcher is handed what it needs of it.
constexpr mode_t kLayerSourceMode = 0600;
constexpr char kRefusal[] = "cannot mount ";

Result<bool> IsThere(const Instance& instance, const std::string& place,
                     const ImageSource& source) {
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const MountEntry* top = FindMount(table, place);
  const std::optional<MountRecord> record = ReadMountRecord(MountRecordFile(instance, place));
  if (top == nullptr || !record) return false;
  const OwnMount mount = LookUp(instance, *record, table);
  if (mount.state != MountState::kMounted || mount.entry.id != top->id) return false;
  if (record->volume == source.Volume() && record->object == source.Object()) return true;
  return Status(EEXIST, place + " shows " + record->url + ", whose name has the same digest");
}

// What is mounted already is fetched from now on as this mount says.
Status RenewSource(const MountRequest& image, ImageSource source, const Deadline& deadline) {
  ASSIGN_OR_RETURN(source.files, FilesOfSource(source));
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(image.instance, deadline));
  return WriteFileAtomically(image.instance.SourceFile(source.Volume()),
                             RecordText(source.ToJson()) + "\n", kLayerSourceMode);
}

Status MountLocked(const MountRequest& image, size_t index, const std::string& place,
                   const Deadline& deadline) {
  const MountRequest::Layer& layer = image.layers[index];
  ASSIGN_OR_RETURN(const bool is_there, IsThere(image.instance, place, layer.source));
  if (is_there) return image.renew ? RenewSource(image, layer.source, deadline) : Status();
  RETURN_IF_ERROR(MakeDirectories(place, 0700));
  return MountOperation({.instance = image.instance,
                         .source = layer.source,
                         .mount_point = place,
                         .content = {.as = "erofs"},
                         .options = {},
                         .timeout = image.timeout,
                         .settings = image.settings,
                         .reference = layer.reference,
                         .image_bytes = layer.bytes,
                         .quiet = image.quiet,
                         .renew = image.renew,
                         .deadline = deadline})
      .Run();
}

}  // namespace

void DescribeOverlay(const Instance& instance, const std::vector<MountRequest::Layer>& layers,
                     MountRecord* record) {
  std::string names;
  for (const MountRequest::Layer& layer : layers) {
    const std::string volume = layer.source.Volume();
    record->layers.push_back(LayerPlace(instance, volume, layer.source.Object()));
    names += volume + "/" + layer.source.Object() + "\n";
  }
  record->kind = "overlay";
  record->volume = "layers-" + DigestHex(DigestOf(names)).substr(0, kNameDigits);
  record->device = "holdfast-" + record->volume;
}

Status CheckOverlayOptions(const MountRequest& request) {
  const std::string count = std::to_string(request.layers.size());
  const ContentChoice& content = request.content;
  if (content.offset != 0 || content.partition != 0 ||
      (content.as != "auto" && content.as != "erofs")) {
    return Status(EINVAL, "it has " + count +
                              " layers, and --as, --offset and --partition are for one object; "
                              "name a layer: oci-blob://REGISTRY/REPOSITORY@DIGEST");
  }
  if (!request.source.verity.empty()) {
    return Status(EINVAL, "it has " + count + " layers, and --verify is for one EROFS image");
  }
  if (request.options.own.empty()) return {};
  return Status(EINVAL, "mount option " + request.options.own.front() +
                            " is for one EROFS image, and the " + count +
                            " layers of this one may be other images' as well");
}

Status MountLayer(const MountRequest& image, size_t index, const std::string& place,
                  const Deadline& deadline) {
  const std::string name =
      "layer " + std::to_string(index + 1) + " of " + std::to_string(image.layers.size());
  // Only root: what is in an image is shown where it was asked for, with the flags of that mount.
  RETURN_IF_ERROR(MakePrivateDirectory(image.instance.LayersDir()));
  const std::string lock_place = place + kLayerLockEnding;
  const Result<UniqueFd> lock = LockDirectory(lock_place, 0700, deadline);
  if (lock.status().error() == ETIMEDOUT) {
    return Status(ETIMEDOUT, name + ": another holdfast mounts it and holds the lock " +
                                 lock_place + "; wait for it (--timeout) or end it");
  }
  RETURN_IF_ERROR(lock.status());
  const Status status = MountLocked(image, index, place, deadline);
  rmdir(lock_place.c_str());
  if (status.ok()) return {};
  const std::string& why = status.message();
  return Status(status.error(),
                name + ": " + (why.starts_with(kRefusal) ? why.substr(sizeof kRefusal - 1) : why));
}

}  // namespace host
