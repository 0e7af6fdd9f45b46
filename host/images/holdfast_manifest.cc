#include "host/images/holdfast_manifest.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "cachecore/base/digest.h"
#include "cachecore/base/json_fields.h"

namespace host {
namespace {

using cachecore::IsDigest;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::JsonText;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr char kOciIndexType[] = "application/vnd.oci.image.index.v1+json";
constexpr size_t kLayersMax = 500;  // The kernel's.
constexpr char kDockerListType[] = "application/vnd.docker.distribution.manifest.list.v2+json";

Status NotHoldfast(const std::string& name, const std::string& why) {
  return Status(EMEDIUMTYPE, name + " is not a Holdfast image (" + why +
                                 "); build one from it with: holdfast image build");
}

// A damaged or forged one: nothing that building again from `name` would help with.
Status BadManifest(const std::string& name, const std::string& why) {
  return Status(EBADMSG, name + ": its manifest " + why);
}

Platform PlatformOf(const json& entry) {
  const json& platform = JsonField(entry, "platform");
  return {JsonString(platform, "os"), JsonString(platform, "architecture"),
          JsonString(platform, "variant")};
}

// Checks a layer's media type and gives its digest.
Result<std::string> LayerDigest(const json& layer, const char* media_type,
                                const std::string& name) {
  const std::string type = JsonString(layer, "mediaType");
  if (type != media_type) return NotHoldfast(name, "it has a layer of type '" + type + "'");
  std::string digest = JsonString(layer, "digest");
  if (!IsDigest(digest)) return BadManifest(name, "has a layer without a sha256 digest");
  return digest;
}

Result<HoldfastManifest> TakeLayers(const json& manifest, const std::string& name) {
  const json& layers = JsonField(manifest, "layers");
  if (!layers.is_array() || layers.size() != 2) {
    return NotHoldfast(name, "it has " + std::to_string(layers.is_array() ? layers.size() : 0) +
                                 " layers, not an image and its Merkle tree");
  }
  HoldfastManifest found;
  ImageLayer erofs;
  ASSIGN_OR_RETURN(erofs.digest, LayerDigest(layers[0], kErofsLayerType, name));
  ASSIGN_OR_RETURN(found.merkle_digest, LayerDigest(layers[1], kMerkleLayerType, name));
  const json& annotations = JsonField(layers[0], "annotations");
  found.verity = JsonString(annotations, kVerityAnnotation);
  if (!IsDigest(found.verity)) {
    return BadManifest(name, std::string("lacks the annotation ") + kVerityAnnotation +
                                 " with the image's fs-verity digest");
  }
  const int64_t size = JsonInt(layers[0], "size", -1);
  if (size <= 0 || JsonString(annotations, kSizeAnnotation) != std::to_string(size)) {
    return BadManifest(name, std::string("gives the image one size, and in the annotation ") +
                                 kSizeAnnotation + " another");
  }
  erofs.bytes = static_cast<uint64_t>(size);
  found.layers.push_back(std::move(erofs));
  if (JsonString(annotations, kMerkleAnnotation) != found.merkle_digest) {
    return BadManifest(name, std::string("names one Merkle tree in its layers, and in the "
                                         "annotation ") +
                                 kMerkleAnnotation + " another");
  }
  return found;
}

bool IsNativeType(const std::string& type) {
  return type == kNativeLayerType || type.starts_with(std::string(kNativeLayerType) + "+");
}

bool IsNative(const json& manifest) {
  const json& layers = JsonField(manifest, "layers");
  return layers.is_array() && !layers.empty() &&
         std::all_of(layers.begin(), layers.end(), [](const json& layer) {
           return IsNativeType(JsonString(layer, "mediaType"));
         });
}

Result<HoldfastManifest> ParseNative(const json& manifest, const std::string& name) {
  const json& layers = JsonField(manifest, "layers");
  for (const json& layer : layers) {
    if (JsonString(layer, "mediaType") == kNativeLayerType) continue;
    return Status(EMEDIUMTYPE, name + " has a layer of type " + JsonString(layer, "mediaType") +
                                   ", compressed as a whole, which cannot be read in parts; "
                                   "convert the image with: ctr image convert --erofs raw");
  }
  if (layers.size() > kLayersMax) {
    return Status(EMEDIUMTYPE, name + " has " + std::to_string(layers.size()) +
                                   " layers, and an overlay takes " + std::to_string(kLayersMax) +
                                   "; build it with fewer");
  }
  HoldfastManifest found;
  found.config_digest = JsonString(JsonField(manifest, "config"), "digest");
  if (!IsDigest(found.config_digest)) {
    return BadManifest(name, "has a config without a sha256 digest");
  }
  for (const json& layer : layers) {
    const int64_t size = JsonInt(layer, "size", -1);
    if (size <= 0) return BadManifest(name, "gives a layer no size");
    found.layers.push_back({JsonString(layer, "digest"), static_cast<uint64_t>(size)});
    if (!IsDigest(found.layers.back().digest)) {
      return BadManifest(name, "has a layer without a sha256 digest");
    }
  }
  return found;
}

}  // namespace

Platform Platform::OfThisMachine() {
  static const std::map<std::string, Platform> known = {
      {"x86_64", {"linux", "amd64", ""}},    {"aarch64", {"linux", "arm64", "v8"}},
      {"armv7l", {"linux", "arm", "v7"}},    {"armv6l", {"linux", "arm", "v6"}},
      {"i686", {"linux", "386", ""}},        {"ppc64le", {"linux", "ppc64le", ""}},
      {"riscv64", {"linux", "riscv64", ""}}, {"s390x", {"linux", "s390x", ""}}};
  utsname names = {};
  uname(&names);
  const auto found = known.find(names.machine);
  return found != known.end() ? found->second : Platform{"linux", names.machine, ""};
}

std::string Platform::Text() const {
  return os + "/" + architecture + (variant.empty() ? "" : "/" + variant);
}

bool IsManifestList(const json& manifest) {
  const std::string type = JsonString(manifest, "mediaType");
  if (type.empty()) return JsonField(manifest, "manifests").is_array();
  return type == kOciIndexType || type == kDockerListType;
}

Result<std::vector<std::string>> ManifestsFor(const json& list, const Platform& platform,
                                              const std::string& name) {
  const json& entries = JsonField(list, "manifests");
  if (!entries.is_array() || entries.empty()) return BadManifest(name, "is an empty list");
  std::string there_are;
  std::vector<std::string> found;
  for (const json& entry : entries) {
    const Platform offered = PlatformOf(entry);
    const bool is_said = !offered.os.empty() || !offered.architecture.empty();
    const bool fits = offered.os == platform.os && offered.architecture == platform.architecture &&
                      (offered.variant.empty() || offered.variant == platform.variant);
    // One without a platform is for every machine, but never one of several.
    if (fits || (!is_said && entries.size() == 1)) {
      found.push_back(JsonString(entry, "digest"));
      if (!IsDigest(found.back())) return BadManifest(name, "lists one without a sha256 digest");
    }
    there_are +=
        (there_are.empty() ? "" : ", ") + (is_said ? offered.Text() : "one that says none");
  }
  if (!found.empty()) return found;
  return Status(ENOENT, name + " has no image for " + platform.Text() + "; it has " + there_are);
}

Result<HoldfastManifest> ParseHoldfastManifest(const std::string& text, const std::string& name) {
  const json manifest = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object()) return BadManifest(name, "is not JSON");
  const std::string type = JsonString(manifest, "mediaType", kOciManifestType);
  if (type != kOciManifestType) return NotHoldfast(name, "its manifest is of type '" + type + "'");
  const std::string version =
      JsonString(JsonField(manifest, "annotations"), kImageVersionAnnotation);
  if (version.empty()) {
    return NotHoldfast(name,
                       std::string("its manifest has no annotation ") + kImageVersionAnnotation);
  }
  if (version != kImageVersion) {
    return Status(EMEDIUMTYPE, name + " is a Holdfast image of version " + version +
                                   "; this holdfast knows version " + kImageVersion);
  }
  ASSIGN_OR_RETURN(HoldfastManifest found, TakeLayers(manifest, name));
  const json& config = JsonField(manifest, "config");
  if (const std::string config_type = JsonString(config, "mediaType");
      config_type != kOciConfigType) {
    return NotHoldfast(name, "its config is of type '" + config_type + "'");
  }
  found.config_digest = JsonString(config, "digest");
  if (!IsDigest(found.config_digest)) {
    return BadManifest(name, "has a config without a sha256 digest");
  }
  return found;
}

Result<HoldfastManifest> ParseMountableManifest(const std::string& text, const std::string& name) {
  const json manifest = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return IsNative(manifest) ? ParseNative(manifest, name) : ParseHoldfastManifest(text, name);
}

Status CheckNativeConfig(const json& config, const HoldfastManifest& manifest,
                         const std::string& name) {
  if (!manifest.verity.empty()) return {};
  const json& ids = JsonField(JsonField(config, "rootfs"), "diff_ids");
  json wanted = json::array();
  for (const ImageLayer& layer : manifest.layers) wanted.push_back(layer.digest);
  if (ids == wanted) return {};
  return Status(EBADMSG, name + ": its config does not name its layers, " + JsonText(wanted));
}

}  // namespace host
