// What the labels of a Prepare say of the layer that follows: whether it is a Holdfast layer, and
// from where.
//
// Model    containerd hands an image's layer to Prepare with its chain id (kReferenceLabel), with
//          the layer's annotations that begin with "containerd.io/snapshot/", and, when its CRI
//          plugin is told to, with the image's reference and the layer's digest.  A layer with
//          kVerityLabel is an EROFS image; the layer above it that holds its Merkle tree adds
//          nothing, and is known by its chain id, which binds the tree's digest.
// Errors   EINVAL with what is missing or malformed, and the setting that brings it.
// Threads  thread-safe: no state.
// See      docs/image-format.md; OCI image specification 1.0, "Layer ChainID".

#ifndef SNAPSHOTTER_LAYER_LABELS_H_
#define SNAPSHOTTER_LAYER_LABELS_H_

#include <optional>
#include <string>

#include "cachecore/base/status.h"
#include "snapshotter/snapshot_record.h"

namespace snapshotter {

inline constexpr char kReferenceLabel[] = "containerd.io/snapshot.ref";
inline constexpr char kVerityLabel[] = "containerd.io/snapshot/holdfast.verity";
inline constexpr char kMerkleLabel[] = "containerd.io/snapshot/holdfast.merkle";
inline constexpr char kImageLabel[] = "containerd.io/snapshot/cri.image-ref";
inline constexpr char kDigestLabel[] = "containerd.io/snapshot/cri.layer-digest";

// The chain id of a layer over `parent_chain` ("" for the lowest).
std::string ChainId(const std::string& parent_chain, const std::string& diff_id);

// The label's value, or "".
const std::string& LabelOf(const Labels& labels, const char* name);

// The image of a layer; nullopt when it is an ordinary one.
cachecore::Result<std::optional<ImageLayer>> ImageLayerOf(const Labels& labels);

// Whether `reference` is that of the Merkle tree over `parent`.
bool IsMerkleLayer(const SnapshotRecord& parent, const std::string& reference);

}  // namespace snapshotter

#endif  // SNAPSHOTTER_LAYER_LABELS_H_
