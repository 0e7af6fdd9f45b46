// ImageStore: the manifests and configs that an instance has resolved, and what tags meant.
//
// Model    STATE_DIR/images/blobs/sha256/HEX holds a text under its own digest;
//          STATE_DIR/images/tags/HEX.json what a reference with a tag last resolved to.  With both,
//          a reference can be resolved again without a registry.
// Errors   ENOENT not there, or damaged, which is the same: a text that does not have its digest is
//          removed, so that it is fetched again.
// Threads  thread-safe: no state but the files.
// Crash    each file is there whole or not at all.

#ifndef HOST_IMAGES_IMAGE_STORE_H_
#define HOST_IMAGES_IMAGE_STORE_H_

#include <string>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

class ImageStore {
 public:
  explicit ImageStore(const Instance& instance) : directory_(instance.StateDir() + "/images") {}

  cachecore::Result<std::string> Text(const std::string& digest) const;
  cachecore::Status Keep(const std::string& text) const;

  // The digest of the manifest, or list of manifests, that `reference` last named.
  cachecore::Result<std::string> TagDigest(const std::string& reference) const;
  cachecore::Status KeepTag(const std::string& reference, const std::string& digest) const;

 private:
  std::string TextFile(const std::string& digest) const;
  std::string TagFile(const std::string& reference) const;

  std::string directory_;
};

}  // namespace host

#endif  // HOST_IMAGES_IMAGE_STORE_H_
