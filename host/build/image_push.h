// PushImage: puts a built image into a registry.
//
// Errors   EBADMSG or EMEDIUMTYPE when the layout holds no Holdfast image; EACCES and the like as
//          Skopeo; each names layout or reference.
// Threads  one thread only.

#ifndef HOST_BUILD_IMAGE_PUSH_H_
#define HOST_BUILD_IMAGE_PUSH_H_

#include <string>

#include "cachecore/base/progress.h"
#include "cachecore/base/status.h"
#include "host/registries/image_reference.h"
#include "host/registries/registry_options.h"

namespace host {

// The manifest's digest, which is the layout's.
cachecore::Result<std::string> PushImage(const std::string& layout, const ImageReference& target,
                                         const RegistryAccess& access,
                                         cachecore::Progress* progress);

}  // namespace host

#endif  // HOST_BUILD_IMAGE_PUSH_H_
