#include "host/content/image_file_system.h"

#include <algorithm>

namespace host {
namespace {

// Two images of one XFS file system are mounted at once: `nouuid`.
const std::vector<ImageFileSystem>& FileSystems() {
  static const std::vector<ImageFileSystem> kFileSystems = {
      {kErofsType, {}},
      {"squashfs", {}},
      {"ext4", {"noload"}},
      {"xfs", {"norecovery", "nouuid"}},
      {"btrfs", {"rescue=nologreplay"}},
      {"iso9660", {}},
      {"cramfs", {}},
  };
  return kFileSystems;
}

}  // namespace

const ImageFileSystem* FindImageFileSystem(std::string_view type) {
  const auto is_it = [type](const ImageFileSystem& known) { return known.type == type; };
  const auto found = std::find_if(FileSystems().begin(), FileSystems().end(), is_it);
  return found == FileSystems().end() ? nullptr : &*found;
}

std::vector<std::string> ImageFileSystemTypes() {
  std::vector<std::string> types;
  for (const ImageFileSystem& known : FileSystems()) types.emplace_back(known.type);
  return types;
}

}  // namespace host
