// InspectImage: what a reference to a Holdfast image leads to, for people and programs.
//
// Errors   those of ResolveImage.
// Threads  one thread only.

#ifndef HOST_IMAGES_IMAGE_INSPECT_H_
#define HOST_IMAGES_IMAGE_INSPECT_H_

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"
#include "host/registries/registry_options.h"

namespace host {

// `image` is a reference, or the directory of a layout.
cachecore::Result<nlohmann::json> InspectImage(const std::string& image,
                                               const RegistryAccess& access,
                                               const Instance& instance,
                                               std::chrono::milliseconds timeout);
// A line for each thing it says.
std::string InspectText(const nlohmann::json& found);

}  // namespace host

#endif  // HOST_IMAGES_IMAGE_INSPECT_H_
