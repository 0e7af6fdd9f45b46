// OciLayoutWriter: makes a directory in the OCI image layout, blob by blob.
//
// Errors   the errno of what can't be written, with its path; EINTR stopped by a signal.
// Threads  one thread only.
// Crash    nothing is synced: a layout that a power cut has damaged has wrong digests, which
//          its readers check.
// See      docs/image-format.md

#ifndef HOST_IMAGES_OCI_LAYOUT_H_
#define HOST_IMAGES_OCI_LAYOUT_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "cachecore/base/status.h"

namespace host {

struct LayoutBlob {
  std::string digest;
  uint64_t bytes = 0;

  nlohmann::json Descriptor(const std::string& media_type) const;
};

class OciLayoutWriter {
 public:
  // `directory` is there and empty.
  explicit OciLayoutWriter(std::string directory) : directory_(std::move(directory)) {}

  cachecore::Status Begin();
  // Moves a file of the same file system in; `on_progress` may be empty.
  cachecore::Result<LayoutBlob> AddFile(const std::string& path,
                                        const std::function<void(uint64_t)>& on_progress);
  cachecore::Result<LayoutBlob> AddText(const std::string& text);
  // Names `manifest` as the layout's only image.
  cachecore::Status Finish(const LayoutBlob& manifest, const nlohmann::json& platform);

 private:
  std::string PathOf(const std::string& digest) const;

  const std::string directory_;
};

}  // namespace host

#endif  // HOST_IMAGES_OCI_LAYOUT_H_
