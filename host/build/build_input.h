// BuildInput: what `holdfast image build` is given to make an image of.
//
// Model    a prefix says what it is (oci-layout:, oci-archive:, docker-archive:, docker:// and
//          oci://); what has none is a path, and what is there decides: an OCI layout, a directory,
//          or an archive, whose kind is found out when it is read.
// Errors   EINVAL or the errno of the path, with a sentence that says what may be given.
// Threads  immutable value.

#ifndef HOST_BUILD_BUILD_INPUT_H_
#define HOST_BUILD_BUILD_INPUT_H_

#include <string>

#include "cachecore/base/status.h"
#include "host/registries/image_reference.h"

namespace host {

struct BuildInput {
  enum class Kind { kDirectory, kLayout, kArchive, kDockerArchive, kOciArchive, kRegistry };

  Kind kind = Kind::kDirectory;
  std::string text;          // As it was given; for messages.
  std::string path;          // Absolute; "" for a registry.
  std::string tag;           // Of a layout, or the name of one image of an archive; may be "".
  ImageReference reference;  // In a registry.
};

cachecore::Result<BuildInput> ParseBuildInput(const std::string& text);

}  // namespace host

#endif  // HOST_BUILD_BUILD_INPUT_H_
