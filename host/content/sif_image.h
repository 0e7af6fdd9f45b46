// SIF images: the container images of Apptainer and Singularity, which hold a file system.
//
// Model    a header, a table of descriptors of one size, and what they describe.  The partition
//          with the primary system is the container's root: squashfs, or ext3 in old images.
// Units    bytes.
// Errors   EINVAL with a sentence that names the URL: no such partition, an encrypted one, a table
//          or a partition that is not in the object.
// Threads  pure functions.
// See      the SIF specification, version 1

#ifndef HOST_CONTENT_SIF_IMAGE_H_
#define HOST_CONTENT_SIF_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"

namespace host {

// Where the descriptors are.
struct SifTable {
  uint64_t offset = 0;
  size_t bytes = 0;
};

// Nullopt when `head`, the object's first bytes, is not that of a SIF image.
std::optional<SifTable> FindSifTable(std::string_view head);

// Where in an object of `size_bytes` the root file system begins, by the bytes of its table.
cachecore::Result<uint64_t> FindSifRoot(std::string_view table, uint64_t size_bytes,
                                        const std::string& url);

}  // namespace host

#endif  // HOST_CONTENT_SIF_IMAGE_H_
