// HoldfastManifest: what the manifest of a Holdfast image says, and which manifest of a list is
// ours.
//
// Model    docs/image-format.md: an OCI manifest with two layers, the EROFS image and its Merkle
//          tree, and the digest that verifies the one by the other.
// Errors   EBADMSG it is no manifest, EMEDIUMTYPE it is one of something else, ENOENT the list has
//          none for this machine; the sentence begins with `name`, what the manifest is called to
//          people.
// Threads  pure functions.

#ifndef HOST_IMAGES_HOLDFAST_MANIFEST_H_
#define HOST_IMAGES_HOLDFAST_MANIFEST_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace host {

inline constexpr char kOciManifestType[] = "application/vnd.oci.image.manifest.v1+json";
inline constexpr char kOciConfigType[] = "application/vnd.oci.image.config.v1+json";
inline constexpr char kErofsLayerType[] = "application/vnd.oci.image.layer.holdfast.erofs.v1";
inline constexpr char kNativeLayerType[] = "application/vnd.erofs.layer.v1";
inline constexpr char kMerkleLayerType[] = "application/vnd.oci.image.layer.holdfast.merkle.v1";
inline constexpr char kImageVersionAnnotation[] = "org.holdfast.image.version";
inline constexpr char kImageVersion[] = "1";
inline constexpr char kVerityAnnotation[] = "containerd.io/snapshot/holdfast.verity";
inline constexpr char kSizeAnnotation[] = "containerd.io/snapshot/holdfast.size";
inline constexpr char kMerkleAnnotation[] = "containerd.io/snapshot/holdfast.merkle";

struct Platform {
  std::string os;
  std::string architecture;  // As Go calls it: amd64, arm64.
  std::string variant;       // "v8"; "" where there are none.

  static Platform OfThisMachine();
  std::string Text() const;  // "linux/arm64/v8".
};

// A list of manifests, one for each platform (an OCI index or Docker's list).
bool IsManifestList(const nlohmann::json& manifest);
// The digests of those for `platform`, in the list's order; at least one.
cachecore::Result<std::vector<std::string>> ManifestsFor(const nlohmann::json& list,
                                                         const Platform& platform,
                                                         const std::string& name);

// An EROFS image of an image.
struct ImageLayer {
  std::string digest;
  uint64_t bytes = 0;

  bool operator==(const ImageLayer&) const = default;
};

struct HoldfastManifest {
  std::string config_digest;
  std::vector<ImageLayer> layers;  // The lowest first; a Holdfast image has one.
  std::string verity;              // The fs-verity digest of the EROFS image; "" of a native image.
  std::string merkle_digest;
};

cachecore::Result<HoldfastManifest> ParseHoldfastManifest(const std::string& text,
                                                          const std::string& name);
// Also of a native EROFS image (containerd 2.3), whose layers are not compressed as a whole.
cachecore::Result<HoldfastManifest> ParseMountableManifest(const std::string& text,
                                                           const std::string& name);
// Whether the config's diff ids are the layers of such an image: EBADMSG.
cachecore::Status CheckNativeConfig(const nlohmann::json& config, const HoldfastManifest& manifest,
                                    const std::string& name);

}  // namespace host

#endif  // HOST_IMAGES_HOLDFAST_MANIFEST_H_
