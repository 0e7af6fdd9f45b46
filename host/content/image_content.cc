#include "host/content/image_content.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/bounded_call.h"
#include "host/content/image_file_system.h"
#include "host/content/image_kind.h"
#include "host/content/sif_image.h"

namespace host {
namespace {

using cachecore::CallInChild;
using cachecore::Deadline;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignalled;
using cachecore::UniqueFd;
using nlohmann::json;

constexpr uint64_t kPartitionUnit = 512;
// In the place of a file system's name.
constexpr char kSeveral[] = "several";
constexpr std::string_view kQcowMagic("QFI\xfb", 4);

// What libblkid looks for: those that can be mounted, and those that people have and that are then
// refused by their name.  Others would have it read all over the image.
constexpr std::array kProbed = {"squashfs", "squashfs3", "ext2",   "ext3",     "ext4",     "xfs",
                                "btrfs",    "iso9660",   "cramfs", "vfat",     "exfat",    "ntfs",
                                "f2fs",     "hfsplus",   "jfs",    "reiserfs", "bcachefs", "romfs"};

struct ProbeFree {
  void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<blkid_struct_probe, ProbeFree>;

Result<Probe> OpenProbe(const UniqueFd& file, const ImageArea& area) {
  if (!file.valid()) return Status::FromErrno(errno, "open");
  Probe probe(blkid_new_probe());
  if (probe == nullptr) return Status(ENOMEM, "libblkid has no memory");
  if (blkid_probe_set_device(probe.get(), file.get(), static_cast<blkid_loff_t>(area.offset),
                             static_cast<blkid_loff_t>(area.bytes)) != 0) {
    return Status(EINVAL, "libblkid cannot look at it");
  }
  return probe;
}

// In a child.  The name that libblkid has for the file system there; "" for none.
Result<std::string> ProbeFileSystem(const std::string& path, const ImageArea& area) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSIGN_OR_RETURN(const Probe probe, OpenProbe(file, area));
  std::vector<char*> names;
  for (const char* name : kProbed) names.push_back(const_cast<char*>(name));
  names.push_back(nullptr);
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE);
  blkid_probe_filter_superblocks_type(probe.get(), BLKID_FLTR_ONLYIN, names.data());
  errno = 0;
  const int found = blkid_do_safeprobe(probe.get());
  if (found == -2) return std::string(kSeveral);
  if (found < 0) return Status::FromErrno(errno == 0 ? EIO : errno, "read");
  const char* name = nullptr;
  if (found != 0 || blkid_probe_lookup_value(probe.get(), "TYPE", &name, nullptr) != 0)
    return std::string();
  return std::string(name);
}

// In a child.  {"table": "gpt", "partitions": [{number, offset, bytes}]}; "" without a table.  A GPT
// is in the disk's second sector, whatever the size of that is.
Result<std::string> ProbePartitions(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  for (const unsigned sector_bytes : {512U, 4096U}) {
    ASSIGN_OR_RETURN(const Probe probe, OpenProbe(file, {}));
    blkid_probe_set_sectorsize(probe.get(), sector_bytes);
    blkid_probe_enable_partitions(probe.get(), 1);
    blkid_partlist list = blkid_probe_get_partitions(probe.get());
    blkid_parttable table = list == nullptr ? nullptr : blkid_partlist_get_table(list);
    if (table == nullptr) continue;
    json partitions = json::array();
    for (int i = 0; i < blkid_partlist_numof_partitions(list); ++i) {
      blkid_partition partition = blkid_partlist_get_partition(list, i);
      if (blkid_partition_is_extended(partition)) continue;
      partitions.push_back(
          {{"number", blkid_partition_get_partno(partition)},
           {"offset", static_cast<uint64_t>(blkid_partition_get_start(partition)) * kPartitionUnit},
           {"bytes", static_cast<uint64_t>(blkid_partition_get_size(partition)) * kPartitionUnit}});
    }
    return json{{"table", blkid_parttable_get_type(table)}, {"partitions", partitions}}.dump();
  }
  return std::string();
}

// In a child.  `length` bytes of `path` from `offset` on, or all it has there.
Result<std::string> ReadPart(const std::string& path, uint64_t offset, size_t length) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "open");
  std::string part(length, '\0');
  size_t done = 0;
  while (done < length) {
    const ssize_t n =
        pread(fd.get(), part.data() + done, length - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR && !StopSignalled()) continue;
    if (n < 0) return Status::FromErrno(errno, "read");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  part.resize(done);
  return part;
}

Result<std::string> ReadAt(const ImageObject& object, uint64_t offset, size_t bytes,
                           const Deadline& deadline) {
  if (offset > object.bytes) return std::string();
  Result<std::string> read =
      CallInChild([&] { return ReadPart(object.path, offset, bytes); }, deadline);
  return read.ok() ? std::move(read) : Result<std::string>(object.unreadable(read.status()));
}

struct DiskTable {
  std::string type;  // "": none.
  json partitions;
};

Result<DiskTable> PartitionsOf(const ImageObject& object, const Deadline& deadline) {
  const Result<std::string> text =
      CallInChild([&] { return ProbePartitions(object.path); }, deadline);
  if (!text.ok()) return object.unreadable(text.status());
  const json found = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return DiskTable{JsonString(found, "table"), cachecore::JsonField(found, "partitions")};
}

// "1 (512 bytes), 2 (1024 bytes)".
std::string ListOf(const DiskTable& disk) {
  std::string list;
  for (const json& partition : disk.partitions) {
    list += (list.empty() ? "" : ", ") + std::to_string(JsonInt(partition, "number")) + " (" +
            std::to_string(JsonInt(partition, "bytes")) + " bytes)";
  }
  return list.empty() ? "none" : list;
}

// Where the user says it is.
Result<ImageArea> AreaOf(const ImageObject& object, const ContentChoice& choice,
                         const Deadline& deadline) {
  if (choice.offset != 0 && choice.offset >= object.bytes) {
    return Status(EINVAL, object.url + " has " + std::to_string(object.bytes) +
                              " bytes: --offset=" + std::to_string(choice.offset) +
                              " is not in it");
  }
  if (choice.partition == 0) return ImageArea{.offset = choice.offset};
  ASSIGN_OR_RETURN(const DiskTable disk, PartitionsOf(object, deadline));
  if (disk.type.empty()) {
    return Status(EINVAL, object.url + " has no partition table; leave --partition out");
  }
  for (const json& partition : disk.partitions) {
    if (JsonInt(partition, "number") != choice.partition) continue;
    const ImageArea area{static_cast<uint64_t>(JsonInt(partition, "offset")),
                         static_cast<uint64_t>(JsonInt(partition, "bytes"))};
    if (area.offset < object.bytes && area.bytes <= object.bytes - area.offset) return area;
    return Status(EINVAL, object.url + " is a truncated image: partition " +
                              std::to_string(choice.partition) + " ends at byte " +
                              std::to_string(area.offset + area.bytes) + ", the origin has " +
                              std::to_string(object.bytes));
  }
  return Status(EINVAL, object.url + " has no partition " + std::to_string(choice.partition) +
                            "; its partitions (" + disk.type + "): " + ListOf(disk));
}

// ext2, ext3 and ext4 are one file system of the kernel.
std::string KernelType(const std::string& name) {
  return name == "ext2" || name == "ext3" ? "ext4" : name;
}

Status NotMounted(const ImageObject& object, const std::string& name) {
  std::string types;
  for (const std::string& type : ImageFileSystemTypes())
    types += (types.empty() ? "" : ", ") + type;
  return Status(EINVAL, object.url + " holds the file system " + name + ", and Holdfast mounts " +
                            types + " (use --as=file to mount it as a file)");
}

// What of a file its user may not know.
Result<std::string> NoteOf(const ImageObject& object, const std::string& head,
                           const Deadline& deadline) {
  const std::string shown = object.url + " is shown as a file: ";
  if (head.starts_with(kQcowMagic)) {
    return shown + "it is a qcow2 disk; qemu-nbd --read-only serves what is in it";
  }
  ASSIGN_OR_RETURN(const DiskTable disk, PartitionsOf(object, deadline));
  if (disk.type.empty() || disk.partitions.empty()) return std::string();
  return shown + "it is a disk (" + disk.type +
         "); --partition=N mounts one of its partitions: " + ListOf(disk);
}

}  // namespace

Result<ImageContent> FindContent(const ImageObject& object, const ContentChoice& choice,
                                 const Deadline& deadline) {
  ImageContent content;
  content.kind = choice.as;
  if (choice.as == "file") return content;
  ASSIGN_OR_RETURN(content.area, AreaOf(object, choice, deadline));
  const ImageArea& area = content.area;
  ASSIGN_OR_RETURN(content.head, ReadAt(object, area.offset, kImageHeadBytes, deadline));
  if (const std::optional<SifTable> table = FindSifTable(content.head);
      table && area.IsWhole() && choice.as != kErofsType) {
    ASSIGN_OR_RETURN(const std::string slots,
                     ReadAt(object, table->offset, table->bytes, deadline));
    ASSIGN_OR_RETURN(content.area.offset, FindSifRoot(slots, object.bytes, object.url));
    ASSIGN_OR_RETURN(content.head, ReadAt(object, area.offset, kImageHeadBytes, deadline));
  }
  if (choice.as != "auto" && choice.as != kErofsType) return content;
  const uint64_t bytes = area.bytes != 0 ? area.bytes : object.bytes - area.offset;
  ASSIGN_OR_RETURN(const ImageKind kind,
                   RecogniseImage(choice.as, content.head, bytes, object.url));
  content.kind = ImageKindName(kind);
  if (kind == ImageKind::kErofs) return content;
  const bool is_tiny = content.head.size() < kImageHeadBytes;
  if (is_tiny && area.IsWhole()) return content;
  const Result<std::string> name =
      is_tiny ? std::string()
              : CallInChild([&] { return ProbeFileSystem(object.path, area); }, deadline);
  if (!name.ok()) return object.unreadable(name.status());
  if (*name == kSeveral) {
    return Status(EINVAL, object.url + " looks like several file systems; name one by --as");
  }
  if (!name->empty()) {
    content.kind = KernelType(*name);
    return FindImageFileSystem(content.kind) != nullptr ? Result<ImageContent>(content)
                                                        : NotMounted(object, *name);
  }
  if (!area.IsWhole()) {
    return Status(EINVAL, object.url + " has no file system that is known at byte " +
                              std::to_string(area.offset));
  }
  ASSIGN_OR_RETURN(content.note, NoteOf(object, content.head, deadline));
  return content;
}

}  // namespace host
