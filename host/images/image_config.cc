#include "host/images/image_config.h"

#include <cerrno>

#include "cachecore/base/json_fields.h"
#include "host/images/holdfast_manifest.h"

namespace host {
namespace {

using cachecore::JsonString;
using cachecore::JsonText;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr char kCreatedBy[] = "holdfast image build";

}  // namespace

json MinimalImageConfig() {
  const Platform platform = Platform::OfThisMachine();
  json config = {
      {"os", platform.os}, {"architecture", platform.architecture}, {"config", json::object()}};
  if (!platform.variant.empty()) config["variant"] = platform.variant;
  return config;
}

Result<json> ParseImageConfig(const std::string& text, const std::string& name) {
  json config = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return Status(EBADMSG, name + " is not an image config: no JSON object");
  for (const char* field : {"os", "architecture"}) {
    if (JsonString(config, field).empty()) {
      return Status(EBADMSG, name + " is not an image config: it has no \"" + field + "\"");
    }
  }
  return config;
}

json PlatformOfConfig(const json& config) {
  json platform = {{"os", JsonString(config, "os")},
                   {"architecture", JsonString(config, "architecture")}};
  const std::string variant = JsonString(config, "variant");
  if (!variant.empty()) platform["variant"] = variant;
  return platform;
}

std::string HoldfastConfigText(json config, const HoldfastBlobs& blobs) {
  config["rootfs"] = {{"type", "layers"}, {"diff_ids", {blobs.verity, blobs.merkle.digest}}};
  // Readers match entries that have a layer with the layers: the old ones have none any more.
  const auto history = config.find("history");
  if (history != config.end() && history->is_array()) {
    for (json& entry : *history) {
      if (entry.is_object()) entry["empty_layer"] = true;
    }
    for (const char* what : {"EROFS image", "Merkle tree"}) {
      history->push_back({{"created_by", kCreatedBy}, {"comment", what}});
    }
  }
  return JsonText(config);
}

std::string HoldfastManifestText(const LayoutBlob& config, const HoldfastBlobs& blobs) {
  json erofs = blobs.erofs.Descriptor(kErofsLayerType);
  erofs["annotations"] = {{kVerityAnnotation, blobs.verity},
                          {kSizeAnnotation, std::to_string(blobs.erofs.bytes)},
                          {kMerkleAnnotation, blobs.merkle.digest}};
  return JsonText({{"schemaVersion", 2},
                   {"mediaType", kOciManifestType},
                   {"annotations", {{kImageVersionAnnotation, kImageVersion}}},
                   {"config", config.Descriptor(kOciConfigType)},
                   {"layers", {std::move(erofs), blobs.merkle.Descriptor(kMerkleLayerType)}}});
}

}  // namespace host
