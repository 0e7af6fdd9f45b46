// ContainerLayers: a container image's layers, brought here and unpacked into one tree.
//
// Model    skopeo copies the image into an OCI layout in the working directory, checking digests
//          and choosing the platform; holdfast-unpack applies its layers, whiteouts and all, to one
//          directory. Both run contained.
// Errors   each begins with the input's name.
// Threads  one thread only.
// Owns     nothing: what it makes lies in the working directory.

#ifndef HOST_BUILD_CONTAINER_LAYERS_H_
#define HOST_BUILD_CONTAINER_LAYERS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/progress.h"
#include "cachecore/base/status.h"
#include "host/build/build_input.h"
#include "host/build/contained_program.h"
#include "host/registries/registry_options.h"

namespace host {

class ContainerLayers {
 public:
  // `work` is an empty directory; `bytes_max` bounds the layers, and apart from them the tree.
  ContainerLayers(const BuildInput& input, const RegistryAccess& access, std::string work,
                  uint64_t bytes_max)
      : input_(input), access_(access), work_(std::move(work)), bytes_max_(bytes_max) {}

  // The image's config, as it was made.
  cachecore::Result<std::string> Copy(cachecore::Progress* progress);
  // The directory with the tree.
  cachecore::Result<std::string> Unpack(cachecore::Progress* progress);

 private:
  struct Layer {
    std::string path;  // In the working directory.
    std::string diff_id;
    bool is_stargz = false;
  };

  // What skopeo calls the input's kind.
  cachecore::Result<std::string> LocalTransport() const;
  // Also finds the layers.
  cachecore::Result<std::string> ConfigOfCopy();
  cachecore::Status FindLayers(const nlohmann::json& manifest, const std::string& config);
  cachecore::Status Explain(const cachecore::Status& why, const std::string& doing) const;

  const BuildInput& input_;
  const RegistryAccess& access_;
  const std::string work_;
  const uint64_t bytes_max_;
  std::vector<Layer> layers_;  // From the lowest up.
};

}  // namespace host

#endif  // HOST_BUILD_CONTAINER_LAYERS_H_
