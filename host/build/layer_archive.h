// ApplyLayer: reads a layer's archive, whatever it is compressed with, and puts it into a tree.
//
// Model    libarchive undoes gzip, zstd, bzip2 and xz and reads tar in all its kinds.  The archive
//          must be whole, and what it is once decompressed have the digest that the image's config
//          gives for it.
// Errors   EBADMSG not an archive, cut off, or not what the config says; ENOSPC; otherwise those of
//          LayerTree, behind the entry's name.
// Threads  one thread only.  Changes the locale of this process: names are bytes, not text.
// See      host/build/layer_tree.h

#ifndef HOST_BUILD_LAYER_ARCHIVE_H_
#define HOST_BUILD_LAYER_ARCHIVE_H_

#include <string>

#include "cachecore/base/status.h"
#include "host/build/layer_tree.h"

namespace host {

struct LayerArchive {
  std::string path;
  std::string diff_id;     // "sha256:HEX".
  bool is_stargz = false;  // Then it has files for its readers, which belong to no container.
};

// What skopeo calls an archive of an image, by the files in it: "docker-archive", which `docker
// save` makes one for readers of both of, "oci-archive", or "".
cachecore::Result<std::string> TransportOfArchive(const std::string& path);

cachecore::Status ApplyLayer(const LayerArchive& layer, LayerTree* tree);

}  // namespace host

#endif  // HOST_BUILD_LAYER_ARCHIVE_H_
