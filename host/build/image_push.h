// PushImage: puts a built image into a registry.
//
// Errors   EBADMSG or EMEDIUMTYPE when the layout holds no Holdfast image; EACCES and the like as
//          Skopeo; each names layout or reference.
// Threads  one thread only.

#ifndef CLI_IMAGE_PUSH_H_
#define CLI_IMAGE_PUSH_H_

#include <string>

#include "cachecore/status.h"
#include "cli/image_reference.h"
#include "cli/progress.h"
#include "cli/registry_options.h"

namespace cli {

// The manifest's digest, which is the layout's.
cachecore::Result<std::string> PushImage(const std::string& layout, const ImageReference& target,
                                         const RegistryAccess& access, Progress* progress);

}  // namespace cli

#endif  // CLI_IMAGE_PUSH_H_
