// The config and the manifest of a Holdfast image, as texts.
//
// Model    the config is the original image's, with the two blobs in the place of its layers; every
//          field that this program doesn't know stays as it was.  No time and no name of a machine
//          goes in, so the same input gives the same texts.
// Errors   EBADMSG when a config isn't one.
// Threads  pure functions.
// See      docs/image-format.md

#ifndef HOST_IMAGES_IMAGE_CONFIG_H_
#define HOST_IMAGES_IMAGE_CONFIG_H_

#include <nlohmann/json.hpp>
#include <string>

#include "cachecore/base/status.h"
#include "host/images/oci_layout.h"

namespace host {

// Of a directory: this machine's platform and nothing else.
nlohmann::json MinimalImageConfig();
// `name` is what the text is called to people.
cachecore::Result<nlohmann::json> ParseImageConfig(const std::string& text,
                                                   const std::string& name);
// {"os", "architecture", "variant"}, as an index has it.
nlohmann::json PlatformOfConfig(const nlohmann::json& config);

struct HoldfastBlobs {
  LayoutBlob erofs;
  LayoutBlob merkle;
  std::string verity;
};
std::string HoldfastConfigText(nlohmann::json config, const HoldfastBlobs& blobs);
std::string HoldfastManifestText(const LayoutBlob& config, const HoldfastBlobs& blobs);

}  // namespace host

#endif  // HOST_IMAGES_IMAGE_CONFIG_H_
