#include "host/mount/image_mount_options.h"

#include <sys/mount.h>

#include <cerrno>
#include <sstream>
#include <string_view>

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;

// linux/mount.h, which clashes with sys/mount.h, has it; glibc 2.36 has not.
constexpr uint64_t kNoSymfollow = 0x00200000;

struct AttributeWord {
  std::string_view word;
  uint64_t set;
  uint64_t clear;
};

constexpr AttributeWord kAttributeWords[] = {
    {"ro", MOUNT_ATTR_RDONLY, 0},
    {"nosuid", MOUNT_ATTR_NOSUID, 0},
    {"suid", 0, MOUNT_ATTR_NOSUID},
    {"nodev", MOUNT_ATTR_NODEV, 0},
    {"dev", 0, MOUNT_ATTR_NODEV},
    {"noexec", MOUNT_ATTR_NOEXEC, 0},
    {"exec", 0, MOUNT_ATTR_NOEXEC},
    {"noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME},
    {"atime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"norelatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
    {"nostrictatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
    {"diratime", 0, MOUNT_ATTR_NODIRATIME},
    {"nosymfollow", kNoSymfollow, 0},
    {"symfollow", 0, kNoSymfollow},
};

// What mount(8), fstab(5) and systemd.mount(5) keep for themselves, and what changes nothing where
// nothing is written.
constexpr std::string_view kIgnoredWords[] = {
    "defaults", "auto",     "noauto",     "nofail",   "_netdev",    "nouser",
    "sync",     "async",    "dirsync",    "lazytime", "nolazytime", "mand",
    "nomand",   "iversion", "noiversion", "loud",     "silent",
};

bool IsIgnored(const std::string& word) {
  for (const std::string_view ignored : kIgnoredWords) {
    if (word == ignored) return true;
  }
  return word.starts_with("x-") || word.starts_with("X-") || word.starts_with("comment=");
}

// As mount(8): for other users' sake these make a mount harmless.
bool IsForUsers(const std::string& word) {
  return word == "user" || word == "users" || word == "owner" || word == "group";
}

const AttributeWord* FindAttribute(const std::string& word) {
  for (const AttributeWord& known : kAttributeWords) {
    if (word == known.word) return &known;
  }
  return nullptr;
}

}  // namespace

Result<ImageMountOptions> ImageMountOptions::Parse(const std::string& text, bool suid, bool dev) {
  ImageMountOptions options;
  if (suid) options.attributes &= ~uint64_t{MOUNT_ATTR_NOSUID};
  if (dev) options.attributes &= ~uint64_t{MOUNT_ATTR_NODEV};
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    if (word.empty()) continue;
    if (word == "rw") {
      return Status(EINVAL, "mount option rw: an image is mounted read-only; leave the option out");
    }
    if (word == "remount" || word == "bind" || word == "rbind" || word == "move") {
      return Status(EINVAL, "mount option " + word +
                                " asks for something else than a mount of an "
                                "image; leave the option out");
    }
    if (const AttributeWord* known = FindAttribute(word)) {
      options.attributes = (options.attributes & ~known->clear) | known->set;
    } else if (IsForUsers(word)) {
      options.attributes |= MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
      if (word.starts_with("user")) options.attributes |= MOUNT_ATTR_NOEXEC;
    } else if (!IsIgnored(word)) {
      options.own.push_back(word);
    }
  }
  return options;
}

}  // namespace host
