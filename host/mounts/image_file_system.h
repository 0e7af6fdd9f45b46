// Image file systems: those of the kernel that an image is mounted as.
//
// Model    a table of names, as the kernel and mount tables spell them, with the mount options
//          without which the kernel would replay a journal, or refuse a second mount.
// Threads  constants.
// See      Linux Documentation/filesystems; libblkid's names of them in host/mount/image_content.cc

#ifndef HOST_MOUNTS_IMAGE_FILE_SYSTEM_H_
#define HOST_MOUNTS_IMAGE_FILE_SYSTEM_H_

#include <string>
#include <string_view>
#include <vector>

namespace host {

inline constexpr char kErofs[] = "erofs";

struct ImageFileSystem {
  std::string_view type;
  std::vector<std::string> options;  // Always given.
};

// Null: not one of them.
const ImageFileSystem* FindImageFileSystem(std::string_view type);
// Their types, kErofs first.
std::vector<std::string> ImageFileSystemTypes();

}  // namespace host

#endif  // HOST_MOUNTS_IMAGE_FILE_SYSTEM_H_
