// Image file systems: those of the kernel that an image is mounted as.
//
// Model    a table of names, as the kernel and mount tables spell them, with the mount options
//          without which the kernel would replay a journal, or refuse a second mount.
// Threads  constants.
// See      Linux Documentation/filesystems

#ifndef HOST_CONTENT_IMAGE_FILE_SYSTEM_H_
#define HOST_CONTENT_IMAGE_FILE_SYSTEM_H_

#include <string>
#include <string_view>
#include <vector>

namespace host {

inline constexpr char kErofsType[] = "erofs";

struct ImageFileSystem {
  std::string_view type;
  std::vector<std::string> options;  // Always given.
};

// Null: not one of them.
const ImageFileSystem* FindImageFileSystem(std::string_view type);
// Their types, kErofsType first.
std::vector<std::string> ImageFileSystemTypes();

}  // namespace host

#endif  // HOST_CONTENT_IMAGE_FILE_SYSTEM_H_
