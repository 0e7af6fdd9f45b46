// BuildImage: makes a Holdfast image of a directory or of a container image.
//
// Model    layers are copied (skopeo), unpacked (holdfast-unpack) and the tree is made an EROFS
//          image (mkfs.erofs), whose Merkle tree and fs-verity digest (fsverity) go into the
//          manifest.  The same input gives the same bytes, whatever the file system that holds it
//          and the order of its directories.  All tools run contained; everything is made beside
//          the output and renamed when it is whole.
// Errors   each names the input or the output and says what to do; nothing is left behind then.
// Threads  one thread only.
// Crash    a directory .OUT.holdfast-* may be left beside the output or in the temporary directory.
// See      docs/image-format.md

#ifndef HOST_BUILD_IMAGE_BUILD_H_
#define HOST_BUILD_IMAGE_BUILD_H_

#include <cstdint>
#include <string>

#include "cachecore/base/progress.h"
#include "cachecore/base/status.h"
#include "host/build/build_input.h"
#include "host/build/image_tree.h"
#include "host/images/oci_layout.h"
#include "host/registries/registry_options.h"

namespace host {

struct ImageBuildRequest {
  BuildInput input;
  RegistryAccess access;
  std::string output;           // Absolute; the directory that becomes an OCI layout.
  bool replaces = false;        // A layout that is there goes.
  std::string config_file;      // For a directory: an OCI image config; "" is a minimal one.
  std::string tmp_directory;    // Where layers are unpacked; "" is beside the output.
  uint64_t tree_bytes_max = 0;  // 0: as much as two fifths of what is free there.
};

struct BuiltImage {
  LayoutBlob manifest;
  LayoutBlob config;
  LayoutBlob erofs;
  LayoutBlob merkle;
  std::string verity;
  std::string platform;
  TreeSize tree;
};

cachecore::Result<BuiltImage> BuildImage(const ImageBuildRequest& request,
                                         cachecore::Progress* progress);

}  // namespace host

#endif  // HOST_BUILD_IMAGE_BUILD_H_
