#include "host/build/layer_archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <openssl/evp.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "cachecore/base/digest.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr size_t kPieceBytes = 256 << 10;

using ArchivePointer = std::unique_ptr<archive, int (*)(archive*)>;
using HashPointer = std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)>;

std::string WordsOf(archive* reader) {
  const char* words = archive_error_string(reader);
  return words != nullptr ? words : "it is truncated or damaged";
}

// The archive without its compression, hashed as it passes.
class Decompressed {
 public:
  Decompressed()
      : reader_(archive_read_new(), archive_read_free),
        hash_(EVP_MD_CTX_new(), EVP_MD_CTX_free),
        piece_(kPieceBytes) {}

  Status Open(const std::string& path) {
    archive* reader = reader_.get();
    archive_read_support_filter_gzip(reader);
    archive_read_support_filter_zstd(reader);
    archive_read_support_filter_bzip2(reader);
    archive_read_support_filter_xz(reader);
    archive_read_support_format_raw(reader);
    archive_read_support_format_empty(reader);
    archive_entry* entry = nullptr;
    EVP_DigestInit_ex(hash_.get(), EVP_sha256(), nullptr);
    if (archive_read_open_filename(reader, path.c_str(), kPieceBytes) != ARCHIVE_OK) {
      return Status(EBADMSG, WordsOf(reader));
    }
    const int opened = archive_read_next_header(reader, &entry);
    is_at_end_ = opened == ARCHIVE_EOF;
    return opened == ARCHIVE_OK || is_at_end_ ? Status() : Status(EBADMSG, WordsOf(reader));
  }

  // A reader of tar that reads this.  It must not outlive it.
  Result<ArchivePointer> OpenTar() {
    ArchivePointer tar(archive_read_new(), archive_read_free);
    archive_read_support_format_tar(tar.get());
    archive_read_support_format_empty(tar.get());
    if (archive_read_open(tar.get(), this, nullptr, Read, nullptr) == ARCHIVE_OK) return tar;
    return Status(EBADMSG, WordsOf(tar.get()));
  }

  // libarchive's callback: the next bytes, 0 at the end, -1.
  static la_ssize_t Read(archive* asker, void* self, const void** piece) {
    auto* const decompressed = static_cast<Decompressed*>(self);
    const la_ssize_t got = decompressed->Next();
    *piece = decompressed->piece_.data();
    if (got >= 0) return got;
    archive_set_error(asker, EBADMSG, "%s", WordsOf(decompressed->reader_.get()).c_str());
    return -1;
  }

  // Reads to the end, past what a reader of tar looks at.  The digest of all of it.
  Result<std::string> Finish() {
    la_ssize_t got = 1;
    while (got > 0) got = Next();
    if (got < 0) return Status(EBADMSG, WordsOf(reader_.get()));
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    EVP_DigestFinal_ex(hash_.get(), bytes, &length);
    return cachecore::DigestOfHash({reinterpret_cast<const char*>(bytes), length});
  }

 private:
  la_ssize_t Next() {
    if (is_at_end_) return 0;
    const la_ssize_t got = archive_read_data(reader_.get(), piece_.data(), piece_.size());
    is_at_end_ = got == 0;
    if (got > 0) EVP_DigestUpdate(hash_.get(), piece_.data(), static_cast<size_t>(got));
    return got;
  }

  const ArchivePointer reader_;
  const HashPointer hash_;
  std::vector<char> piece_;
  bool is_at_end_ = false;
};

Status WriteAll(int fd, const char* data, size_t size, off_t offset) {
  while (size > 0) {
    const ssize_t put = pwrite(fd, data, size, offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return Status::FromErrno(errno, "write it");
    data += put;
    size -= static_cast<size_t>(put);
    offset += put;
  }
  return {};
}

Status WriteContents(archive* tar, int64_t size, int fd) {
  if (ftruncate(fd, size) != 0) return Status::FromErrno(errno, "make it that long");
  for (;;) {
    const void* data = nullptr;
    size_t length = 0;
    la_int64_t offset = 0;
    const int got = archive_read_data_block(tar, &data, &length, &offset);
    if (got == ARCHIVE_EOF) return {};
    if (got != ARCHIVE_OK) return Status(EBADMSG, WordsOf(tar));
    RETURN_IF_ERROR(WriteAll(fd, static_cast<const char*>(data), length, offset));
  }
}

LayerEntry EntryOf(archive_entry* read) {
  LayerEntry entry;
  const char* const name = archive_entry_pathname(read);
  const char* const hard_link = archive_entry_hardlink(read);
  const char* const symlink = archive_entry_symlink(read);
  if (name != nullptr) entry.name = name;
  entry.is_hard_link = hard_link != nullptr;
  if (hard_link != nullptr) {
    entry.target = hard_link;
  } else if (symlink != nullptr) {
    entry.target = symlink;
  }
  entry.mode = archive_entry_mode(read);
  entry.uid = static_cast<uid_t>(archive_entry_uid(read));
  entry.gid = static_cast<gid_t>(archive_entry_gid(read));
  entry.mtime.tv_sec = archive_entry_mtime(read);
  entry.mtime.tv_nsec = archive_entry_mtime_nsec(read);
  entry.device = makedev(static_cast<unsigned>(archive_entry_rdevmajor(read)),
                         static_cast<unsigned>(archive_entry_rdevminor(read)));
  archive_entry_xattr_reset(read);
  const char* key = nullptr;
  const void* value = nullptr;
  for (size_t size = 0; archive_entry_xattr_next(read, &key, &value, &size) == ARCHIVE_OK;) {
    entry.xattrs.emplace_back(key, std::string(static_cast<const char*>(value), size));
  }
  return entry;
}

// A name as a message may have it.
std::string Shown(std::string name) {
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return c < ' ' || c == 0x7f; }, '?');
  return name;
}

// For programs that read parts of such an archive; a container has no use for them.
bool IsForStargz(std::string_view name) {
  if (name.starts_with("./")) name.remove_prefix(2);
  return name == "stargz.index.json" || name == ".prefetch.landmark" ||
         name == ".no.prefetch.landmark";
}

// libarchive then keeps the bytes as they are, which is what a name is.
bool IsAboutCharacters(archive* tar) {
  return WordsOf(tar).find("can't be converted") != std::string::npos;
}

Status ApplyEntries(archive* tar, bool is_stargz, LayerTree* tree) {
  for (;;) {
    archive_entry* read = nullptr;
    const int got = archive_read_next_header(tar, &read);
    if (got == ARCHIVE_EOF) return {};
    if (got != ARCHIVE_OK && !(got == ARCHIVE_WARN && IsAboutCharacters(tar))) {
      return Status(EBADMSG, WordsOf(tar));
    }
    const LayerEntry entry = EntryOf(read);
    if (is_stargz && IsForStargz(entry.name)) continue;
    const int64_t size = archive_entry_size(read);
    const auto write = [tar, size](int fd) { return WriteContents(tar, size, fd); };
    RETURN_IF_ERROR(tree->Put(entry, write).WithContext(Shown(entry.name)));
  }
}

}  // namespace

Result<std::string> TransportOfArchive(const std::string& path) {
  Decompressed decompressed;
  RETURN_IF_ERROR(decompressed.Open(path));
  ASSIGN_OR_RETURN(const ArchivePointer tar, decompressed.OpenTar());
  std::string found;
  for (;;) {
    archive_entry* read = nullptr;
    const int got = archive_read_next_header(tar.get(), &read);
    if (got == ARCHIVE_EOF) return found;
    if (got != ARCHIVE_OK && got != ARCHIVE_WARN) return Status(EBADMSG, WordsOf(tar.get()));
    std::string_view name = archive_entry_pathname(read) ? archive_entry_pathname(read) : "";
    if (name.starts_with("./")) name.remove_prefix(2);
    if (name == "manifest.json") return std::string("docker-archive");
    if (name == "oci-layout") found = "oci-archive";
  }
}

Status ApplyLayer(const LayerArchive& layer, LayerTree* tree) {
  // In the C locale libarchive has no name at all for one that isn't ASCII.
  std::setlocale(LC_CTYPE, "C.UTF-8");
  tree->BeginLayer();
  Decompressed decompressed;
  RETURN_IF_ERROR(decompressed.Open(layer.path));
  ASSIGN_OR_RETURN(const ArchivePointer tar, decompressed.OpenTar());
  RETURN_IF_ERROR(ApplyEntries(tar.get(), layer.is_stargz, tree));
  ASSIGN_OR_RETURN(const std::string digest, decompressed.Finish());
  if (digest == layer.diff_id) return {};
  return Status(EBADMSG, "its config says that it is " + layer.diff_id + ", and it is " + digest);
}

}  // namespace host
