// Options: the command line of holdfast-snapshotter.
//
// Errors   EINVAL with the flag and what it takes; ENOENT when there is no `holdfast`.

#ifndef SNAPSHOTTER_FLAGS_H_
#define SNAPSHOTTER_FLAGS_H_

#include <map>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "snapshotter/image_mounter.h"

namespace snapshotter {

struct Options {
  std::string socket;
  std::string root;
  HoldfastOptions holdfast;
};

// REQUIRES: the command line is parsed.
cachecore::Result<Options> OptionsFromFlags();

// "REGISTRY=MIRROR,REGISTRY=MIRROR".
cachecore::Result<std::map<std::string, std::vector<std::string>>> ParseMirrors(
    const std::string& text);

}  // namespace snapshotter

#endif  // SNAPSHOTTER_FLAGS_H_
