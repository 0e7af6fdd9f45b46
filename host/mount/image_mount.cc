#include "host/mount/image_mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "cachecore/base/unique_fd.h"
#include "cachecore/system/bounded_call.h"
#include "host/content/image_file_system.h"

namespace host {
namespace {

using cachecore::ChildAnswer;
using cachecore::Deadline;
using cachecore::OpenInChild;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr uint64_t kSectorBytes = 512;
constexpr int kLoopAttemptsMax = 64;  // Others may take the free device we were told of.

struct LoopDevice {
  std::string path;
  UniqueFd fd;  // The device clears itself at the last close, so it is kept until mounted.
};

Result<LoopDevice> AttachLoop(const std::string& image, const ImageArea& area) {
  UniqueFd backing(open(image.c_str(), O_RDONLY | O_CLOEXEC));
  if (!backing.valid()) return Status::FromErrno(errno, image);
  UniqueFd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control.valid()) {
    return Status::FromErrno(errno,
                             "no loop device (this kernel can't mount the image from a "
                             "file there): /dev/loop-control");
  }
  for (int attempt = 0; attempt < kLoopAttemptsMax; ++attempt) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return Status::FromErrno(errno, "find a free loop device");
    LoopDevice device;
    device.path = "/dev/loop" + std::to_string(number);
    device.fd.Reset(open(device.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!device.fd.valid()) return Status::FromErrno(errno, device.path);
    loop_config config = {};
    config.fd = static_cast<uint32_t>(backing.get());
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    config.info.lo_offset = area.offset;
    config.info.lo_sizelimit = area.bytes;
    std::strncpy(reinterpret_cast<char*>(config.info.lo_file_name), image.c_str(),
                 LO_NAME_SIZE - 1);
    if (ioctl(device.fd.get(), LOOP_CONFIGURE, &config) == 0) return device;
    if (errno != EBUSY) return Status::FromErrno(errno, "set up " + device.path);
  }
  return Status(EBUSY, "every free loop device was taken by another process");
}

// FSCONFIG_SET_STRING takes so much, with its null byte.
constexpr size_t kParameterBytesMax = 256;

// What the kernel has to say about an attempt to make a file system; "" when it has nothing.
std::string LastWordOf(const UniqueFd& context) {
  char line[512];
  std::string last;
  for (ssize_t n; (n = read(context.get(), line, sizeof line)) > 2;) {
    last.assign(line + 2, static_cast<size_t>(n) - 2);  // "e ", "w " or "i " goes before it.
    while (last.ends_with('\n')) last.pop_back();
  }
  return last;
}

Status Refused(const std::string& name, int error, const UniqueFd& context) {
  Status status = Status::FromErrno(error, "the kernel refused to mount the " + name + " image");
  const std::string said = LastWordOf(context);
  if (!said.empty()) status = Status(error, status.message() + " (" + said + ")");
  if (error != EINVAL) return status;
  return Status(EINVAL, status.message() +
                            " (dmesg says why; is it such an image? holdfast mount --as=file "
                            "shows a file as it is)");
}

Status SetOption(const std::string& name, const UniqueFd& context, const std::string& option) {
  const size_t equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const int failed =
      equals == std::string::npos
          ? fsconfig(context.get(), FSCONFIG_SET_FLAG, key.c_str(), nullptr, 0)
          : fsconfig(context.get(), FSCONFIG_SET_STRING, key.c_str(), &option[equals + 1], 0);
  if (failed == 0) return {};
  const int error = errno;
  const std::string said = LastWordOf(context);
  return Status(error, name + " does not take the mount option " + option + ": " +
                           (said.empty() ? std::strerror(error) : said));
}

// In a child.  The kernel takes no source that is long: such a one is given from its directory.
Result<std::string> SourceParameter(const std::string& source) {
  if (source.size() < kParameterBytesMax) return source;
  const size_t slash = source.rfind('/');
  if (chdir(source.substr(0, slash + 1).c_str()) != 0) return Status::FromErrno(errno, source);
  return source.substr(slash + 1);
}

// As people write it.
std::string NameOf(const std::string& type) { return type == kErofsType ? "EROFS" : type; }

Result<UniqueFd> OpenContext(const std::string& type) {
  UniqueFd context(fsopen(type.c_str(), FSOPEN_CLOEXEC));
  if (context.valid()) return context;
  if (errno != ENODEV) return Status::FromErrno(errno, "open the file system " + type);
  // The kernel has just looked for the module by the file system's name.
  return Status(ENODEV, "this kernel has no " + NameOf(type) + "; load it (modprobe " +
                            (type == "iso9660" ? "isofs" : type) + "), or use --as=file");
}

// A mount of the image in `source`, a file or a block device, that is nowhere yet.
Result<UniqueFd> MakeFileSystem(const std::string& type, const std::string& source,
                                const ImageMountOptions& options) {
  ASSIGN_OR_RETURN(const UniqueFd context, OpenContext(type));
  const std::string name = NameOf(type);
  ASSIGN_OR_RETURN(const std::string parameter, SourceParameter(source));
  if (fsconfig(context.get(), FSCONFIG_SET_STRING, "source", parameter.c_str(), 0) != 0 ||
      fsconfig(context.get(), FSCONFIG_SET_FLAG, "ro", nullptr, 0) != 0) {
    return Refused(name, errno, context);
  }
  std::vector<std::string> words = FindImageFileSystem(type)->options;
  words.insert(words.end(), options.own.begin(), options.own.end());
  for (const std::string& word : words) RETURN_IF_ERROR(SetOption(name, context, word));
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return Refused(name, errno, context);
  }
  UniqueFd mount(
      fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(options.attributes)));
  if (!mount.valid()) return Status::FromErrno(errno, "mount the " + name + " image");
  return mount;
}

Result<ChildAnswer> MakeOnNewLoop(const std::string& type, const std::string& image,
                                  const ImageArea& area, const ImageMountOptions& options) {
  ASSIGN_OR_RETURN(const LoopDevice loop, AttachLoop(image, area));
  Result<UniqueFd> mount = MakeFileSystem(type, loop.path, options);
  if (mount.ok()) return ChildAnswer{loop.path, std::move(mount).value()};
  struct stat info = {};
  const int error = mount.status().error();
  const uint64_t tail = stat(image.c_str(), &info) == 0
                            ? (static_cast<uint64_t>(info.st_size) - area.offset) % kSectorBytes
                            : 0;
  if (area.bytes != 0 || tail == 0) return mount.status();
  return Status(error, mount.status().message() + "; a loop device leaves out the last " +
                           std::to_string(tail) +
                           " bytes, which fill no sector: pad the image to a "
                           "multiple of 512 bytes");
}

Result<ChildAnswer> CopyDirectory(const std::string& directory, const ImageMountOptions& options) {
  UniqueFd mount(open_tree(AT_FDCWD, directory.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!mount.valid()) return Status::FromErrno(errno, "bind " + directory);
  mount_attr attributes = {};
  attributes.attr_set = options.attributes;
  attributes.attr_clr = (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV) & ~options.attributes;
  if (options.attributes & MOUNT_ATTR__ATIME) attributes.attr_clr |= MOUNT_ATTR__ATIME;
  if (mount_setattr(mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
    return Status::FromErrno(errno, "make the bind mount of " + directory + " read-only");
  }
  return ChildAnswer{directory, std::move(mount)};
}

// How the kernel is given the lower directories.
enum class LowerWay {
  kEach,    // One after another, from Linux 6.8 on.
  kJoined,  // In one parameter, which takes kParameterBytesMax.
};

// In a child, whose directory has the layers: their names need no escapes there, and are short.
// What an image says of redirects, and of files whose data is elsewhere, is not followed.
Result<UniqueFd> MakeOverlay(const std::vector<std::string>& names, LowerWay way,
                             const std::string& source, const ImageMountOptions& options) {
  const UniqueFd context(fsopen("overlay", FSOPEN_CLOEXEC));
  if (!context.valid() && errno == ENODEV) {
    return Status(ENODEV, "this kernel has no overlay file system; load it (modprobe overlay)");
  }
  if (!context.valid()) return Status::FromErrno(errno, "open the file system overlay");
  std::vector<std::pair<const char*, std::string>> parameters = {
      {"source", source}, {"redirect_dir", "nofollow"}, {"metacopy", "off"}, {"xino", "on"}};
  std::string joined;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    if (way == LowerWay::kEach) parameters.emplace_back("lowerdir+", *name);
    joined += (joined.empty() ? "" : ":") + *name;
  }
  if (way == LowerWay::kJoined) parameters.emplace_back("lowerdir", joined);
  const auto refused = [&context](int error) {
    const std::string said = LastWordOf(context);
    const Status status = Status::FromErrno(error, "the kernel refused the overlay of the layers");
    return said.empty() ? status : Status(error, status.message() + " (" + said + ")");
  };
  for (const auto& [key, value] : parameters) {
    if (fsconfig(context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0) {
      return refused(errno);
    }
  }
  if (fsconfig(context.get(), FSCONFIG_SET_FLAG, "ro", nullptr, 0) != 0 ||
      fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return refused(errno);
  }
  UniqueFd mount(
      fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(options.attributes)));
  if (!mount.valid()) return Status::FromErrno(errno, "mount the overlay");
  return mount;
}

Result<UniqueFd> MakeOverlayIn(const std::string& directory, const std::vector<std::string>& names,
                               const std::string& source, const ImageMountOptions& options) {
  if (chdir(directory.c_str()) != 0) return Status::FromErrno(errno, directory);
  Result<UniqueFd> made = MakeOverlay(names, LowerWay::kEach, source, options);
  if (made.status().error() != EINVAL) return made;
  size_t bytes = 0;
  for (const std::string& name : names) bytes += name.size() + 1;
  if (bytes <= kParameterBytesMax) return MakeOverlay(names, LowerWay::kJoined, source, options);
  return Status(EINVAL, made.status().message() + "; an overlay of " +
                            std::to_string(names.size()) + " layers needs Linux 6.8");
}

// A mount that can't be listed isn't usable; listing also fetches the bytes of the root directory.
Status ListOnce(const UniqueFd& mount) {
  const int fd = openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Status::FromErrno(errno, "open the mount");
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(fdopendir(fd), closedir);
  errno = 0;
  if (directory) readdir(directory.get());
  if (errno != 0) return Status::FromErrno(errno, "list the mount");
  return {};
}

// Runs `make` in a child, for it waits for bytes, and moves what it made onto the mount point.
Result<ImageMount> MakeAndMove(const std::function<Result<ChildAnswer>()>& make, int mount_point,
                               const Deadline& deadline) {
  const auto make_and_list = [&]() -> Result<ChildAnswer> {
    ASSIGN_OR_RETURN(ChildAnswer made, make());
    RETURN_IF_ERROR(ListOnce(made.fd));
    return made;
  };
  ASSIGN_OR_RETURN(ChildAnswer made, OpenInChild(make_and_list, deadline));
  if (!made.fd.valid()) return Status(EIO, "a child process gave no mount");
  if (move_mount(made.fd.get(), "", mount_point, "",
                 MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) {
    return Status::FromErrno(errno, "move the mount onto its mount point");
  }
  return ImageMount{std::move(made.value), std::move(made.fd)};
}

}  // namespace

Result<ImageMount> MountErofs(const std::string& image, int mount_point,
                              const ImageMountOptions& options, const Deadline& deadline) {
  const auto make = [&]() -> Result<ChildAnswer> {
    Result<UniqueFd> direct = MakeFileSystem(kErofsType, image, options);
    if (direct.ok()) return ChildAnswer{image, std::move(direct).value()};
    const int error = direct.status().error();
    if (error != ENOTBLK && error != EINVAL) return std::move(direct).status();
    return MakeOnNewLoop(kErofsType, image, {}, options);
  };
  return MakeAndMove(make, mount_point, deadline);
}

Result<ImageMount> MountByLoop(const std::string& type, const std::string& image,
                               const ImageArea& area, int mount_point,
                               const ImageMountOptions& options, const Deadline& deadline) {
  const auto make = [&] { return MakeOnNewLoop(type, image, area, options); };
  return MakeAndMove(make, mount_point, deadline);
}

Result<ImageMount> OverlayLayers(const std::vector<std::string>& layers, const std::string& source,
                                 int mount_point, const ImageMountOptions& options,
                                 const Deadline& deadline) {
  const std::string directory = layers.front().substr(0, layers.front().rfind('/'));
  std::vector<std::string> names;
  for (const std::string& layer : layers) names.push_back(layer.substr(directory.size() + 1));
  const auto make = [&]() -> Result<ChildAnswer> {
    ASSIGN_OR_RETURN(UniqueFd mount, MakeOverlayIn(directory, names, source, options));
    return ChildAnswer{source, std::move(mount)};
  };
  return MakeAndMove(make, mount_point, deadline);
}

Result<ImageMount> BindDirectory(const std::string& directory, int mount_point,
                                 const ImageMountOptions& options, const Deadline& deadline) {
  if (!options.own.empty()) {
    return Status(EINVAL, "mount option " + options.own.front() +
                              " is for images of file systems, and this is shown as a file");
  }
  const auto make = [&] { return CopyDirectory(directory, options); };
  return MakeAndMove(make, mount_point, deadline);
}

Result<ImageMount> MountContent(const ImageContent& content, const std::string& file,
                                const std::string& directory, int mount_point,
                                const ImageMountOptions& options, const Deadline& deadline) {
  if (content.kind == kErofsType && content.area.IsWhole()) {
    return MountErofs(file, mount_point, options, deadline);
  }
  if (FindImageFileSystem(content.kind) != nullptr) {
    return MountByLoop(content.kind, file, content.area, mount_point, options, deadline);
  }
  return BindDirectory(directory, mount_point, options, deadline);
}

void DetachMount(const ImageMount& mount) {
  const std::string path = "/proc/self/fd/" + std::to_string(mount.mount.get());
  umount2(path.c_str(), MNT_DETACH);
}

}  // namespace host
