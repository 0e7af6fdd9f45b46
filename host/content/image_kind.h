// Image recognition: what the first bytes of an object say it is, and whether that can be mounted.
//
// Model    EROFS is known by the magic number of its superblock at byte 1024.  What looks like a
//          web page is refused unless asked for as a file: it is nearly always an error page or a
//          login form.
// Units    bytes.
// Errors   EINVAL with a sentence that names the URL.
// Threads  pure functions.
// See      Linux fs/erofs/erofs_fs.h, struct erofs_super_block

#ifndef HOST_CONTENT_IMAGE_KIND_H_
#define HOST_CONTENT_IMAGE_KIND_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/status.h"

namespace host {

inline constexpr size_t kImageHeadBytes = 4096;

enum class ImageKind { kErofs, kFile };
const char* ImageKindName(ImageKind kind);

// The size an EROFS superblock says its image has; nullopt when `head` holds no such superblock.
std::optional<uint64_t> ErofsImageBytes(std::string_view head);

// The table of an EROFS image's extra devices: `count` slots of kErofsDeviceSlotBytes, each
// beginning with the device's tag.  Nullopt when `head` tells of none.
struct ErofsDevices {
  uint64_t offset = 0;
  size_t count = 0;
};
inline constexpr size_t kErofsDeviceSlotBytes = 128;
inline constexpr size_t kErofsDeviceTagBytes = 64;
std::optional<ErofsDevices> FindErofsDevices(std::string_view head);

// What an EROFS image needs that a kernel without it refuses, as `known` doesn't have it:
// "fragments (0x20)", "0x400"; "" when it needs nothing of the kind.  `known` is the kernel's list
// of features, /sys/fs/erofs/features.
std::string UnknownErofsFeatures(std::string_view head, const std::vector<std::string>& known);

// `as` is "auto", "erofs" or "file"; `head` the object's first bytes (kImageHeadBytes, or all there
// are); `size_bytes` what the origin says; `url` is for messages.
cachecore::Result<ImageKind> RecogniseImage(const std::string& as, std::string_view head,
                                            uint64_t size_bytes, const std::string& url);

}  // namespace host

#endif  // HOST_CONTENT_IMAGE_KIND_H_
