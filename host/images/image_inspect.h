// InspectImage: what a reference to a Holdfast image leads to, for people and programs.
//
// Errors   those of ResolveImage.
// Threads  one thread only.

#ifndef CLI_IMAGE_INSPECT_H_
#define CLI_IMAGE_INSPECT_H_

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "cachecore/status.h"
#include "cli/instance.h"
#include "cli/registry_options.h"

namespace cli {

// `image` is a reference, or the directory of a layout.
cachecore::Result<nlohmann::json> InspectImage(const std::string& image,
                                               const RegistryAccess& access,
                                               const Instance& instance,
                                               std::chrono::milliseconds timeout);
// A line for each thing it says.
std::string InspectText(const nlohmann::json& found);

}  // namespace cli

#endif  // CLI_IMAGE_INSPECT_H_
