// ImageReference: the name of an image in a registry or in a local OCI layout, or of one blob.
//
// Model    oci://REGISTRY/REPO:TAG, oci://REGISTRY/REPO@sha256:HEX (a manifest or a list of them),
//          oci-layout:DIR[:TAG] or DIR@sha256:HEX (a directory in the OCI image layout), and
//          oci-blob://REGISTRY/REPO@sha256:HEX (the blob itself).  A tag before a digest is allowed
//          and says nothing.
// Errors   EINVAL, with a sentence that says what is wrong with which reference.
// Threads  immutable value.
// See      docs/sources.md, "Registries"; the grammar is the OCI distribution specification's.

#ifndef HOST_REGISTRIES_IMAGE_REFERENCE_H_
#define HOST_REGISTRIES_IMAGE_REFERENCE_H_

#include <string>

#include "cachecore/base/status.h"

namespace host {

struct ImageReference {
  enum class Kind { kRegistry, kLayout, kBlob };

  Kind kind = Kind::kRegistry;
  std::string registry;    // Host and port, in lower case; "" for a layout.
  std::string repository;  // "library/debian"; "" for a layout.
  std::string directory;   // Absolute path of a layout.
  std::string tag;         // "" when there is a digest, or a layout's only image is meant.
  std::string digest;      // "sha256:HEX" or "".

  // One text for one meaning; what is recorded and shown.
  std::string Text() const;
};

// Whether `text` has the scheme of a reference, well-formed or not; otherwise it is an image URL.
bool IsImageReference(const std::string& text);
// What to add to an error about `text`, that is no reference and no URL, where it is a path that
// exists: how to name what is there.  Else "".
std::string HintForPath(const std::string& text);
// A layout's directory need not exist.
cachecore::Result<ImageReference> ParseImageReference(const std::string& text);

// A reference, or the directory of a layout without a scheme.
cachecore::Result<ImageReference> ParseLayoutArgument(const std::string& text);

// "host[:port][/prefix]" of --mirror.
cachecore::Status CheckMirror(const std::string& text);

}  // namespace host

#endif  // HOST_REGISTRIES_IMAGE_REFERENCE_H_
