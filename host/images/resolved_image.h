// ResolvedImage: everything that a reference to an image leads to, but the image's bytes.
//
// Model    the reference names a manifest, or a list of which one is for this machine; the manifest
//          names config, EROFS image and Merkle tree by their digests.  Each text has the digest by
//          which it was named: a registry can refuse, not lie.  What was resolved is kept by the
//          instance (ImageStore), and a digest is never asked for twice; a tag is asked of the
//          registry first, then of the mirrors, and only if none can say is what it meant before
//          taken, with a line on stderr.
// Errors   every one begins with the reference: ENOENT no such image, or none for this machine;
//          EMEDIUMTYPE no image that can be mounted; EBADMSG what came does not have the digest;
//          and those of Skopeo.
// Threads  immutable value; ResolveImage blocks until `deadline` at the latest.
// See      docs/image-format.md; docs/sources.md, "Registries"

#ifndef HOST_IMAGES_RESOLVED_IMAGE_H_
#define HOST_IMAGES_RESOLVED_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/images/holdfast_manifest.h"
#include "host/images/image_source.h"
#include "host/instance/instance.h"
#include "host/registries/image_reference.h"
#include "host/registries/registry_options.h"

namespace host {

struct ResolvedImage {
  ImageReference reference;
  std::string manifest_digest;  // Of the one image, never of a list.
  std::string manifest;         // Its text.
  std::string config;           // The config's text, as it was made.
  // The lowest first, each once; at least one.
  std::vector<ImageLayer> layers;
  std::string verity;  // "" of a native EROFS image, whose parts cannot be checked.
  std::string merkle_digest;

  // What tells its EROFS images from those of other images: a digest.
  const std::string& ContentDigest() const {
    return layers.size() == 1 ? layers.front().digest : manifest_digest;
  }
};

cachecore::Result<ResolvedImage> ResolveImage(const ImageReference& reference,
                                              const RegistryAccess& access,
                                              const Instance& instance,
                                              const cachecore::Deadline& deadline);

// Where the fetcher finds a blob of `reference`'s repository or layout, and how it gets in.
// Its registry, that registry's mirrors and other locations in registries.conf, and --mirror's.
// EACCES when a policy or registries.conf forbids it.
cachecore::Result<ImageSource> BlobSource(const ImageReference& reference,
                                          const std::string& digest, const RegistryAccess& access);
// What the fetcher calls a blob of it: the last part of its URL.
std::string BlobKey(const ImageReference& reference, const std::string& digest);

}  // namespace host

#endif  // HOST_IMAGES_RESOLVED_IMAGE_H_
