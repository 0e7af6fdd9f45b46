// ManifestOrigin: where manifests and configs are asked for: a registry and its mirrors, or a
// layout.
//
// Model    what comes is not checked here; a caller that asked by a digest compares.
// Errors   those of Skopeo; ENOENT when a layout has no such tag or blob.
// Threads  one thread only; each question blocks up to its deadline.

#ifndef HOST_IMAGES_MANIFEST_ORIGIN_H_
#define HOST_IMAGES_MANIFEST_ORIGIN_H_

#include <memory>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/registries/image_reference.h"
#include "host/registries/registry_options.h"

namespace host {

class ManifestOrigin {
 public:
  virtual ~ManifestOrigin() = default;
  // `tag_or_digest`: "" is a layout's only image.
  virtual cachecore::Result<std::string> Manifest(const std::string& tag_or_digest,
                                                  const cachecore::Deadline& deadline) = 0;
  virtual cachecore::Result<std::string> Config(const std::string& manifest_digest,
                                                const std::string& config_digest,
                                                const cachecore::Deadline& deadline) = 0;
};

std::unique_ptr<ManifestOrigin> MakeManifestOrigin(const ImageReference& reference,
                                                   const RegistryAccess& access);

}  // namespace host

#endif  // HOST_IMAGES_MANIFEST_ORIGIN_H_
