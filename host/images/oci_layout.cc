#include "host/images/oci_layout.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/digest.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "host/images/holdfast_manifest.h"

namespace host {
namespace {

using cachecore::CreateFileExclusively;
using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::JsonText;
using cachecore::MakeDirectories;
using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignalled;
using cachecore::UniqueFd;
using nlohmann::json;

constexpr char kIndexType[] = "application/vnd.oci.image.index.v1+json";
constexpr char kTagAnnotation[] = "org.opencontainers.image.ref.name";
constexpr char kTag[] = "latest";
constexpr mode_t kLayoutFileMode = 0644;
constexpr size_t kPieceBytes = 1 << 20;

Result<LayoutBlob> BlobOfFile(const std::string& path,
                              const std::function<void(uint64_t)>& on_progress) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, path);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> hash(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  CHECK_EQ(EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr), 1) << "OpenSSL has no SHA-256";
  LayoutBlob blob;
  std::vector<char> piece(kPieceBytes);
  for (;;) {
    if (StopSignalled()) return Status(EINTR, "interrupted by a signal");
    const ssize_t got = read(fd.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::FromErrno(errno, "read " + path);
    if (got == 0) break;
    EVP_DigestUpdate(hash.get(), piece.data(), static_cast<size_t>(got));
    blob.bytes += static_cast<uint64_t>(got);
    if (on_progress) on_progress(blob.bytes);
  }
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  EVP_DigestFinal_ex(hash.get(), bytes, &length);
  blob.digest = cachecore::DigestOfHash({reinterpret_cast<const char*>(bytes), length});
  return blob;
}

}  // namespace

json LayoutBlob::Descriptor(const std::string& media_type) const {
  return {{"mediaType", media_type}, {"digest", digest}, {"size", bytes}};
}

std::string OciLayoutWriter::PathOf(const std::string& digest) const {
  return directory_ + "/blobs/sha256/" + DigestHex(digest);
}

Status OciLayoutWriter::Begin() {
  RETURN_IF_ERROR(MakeDirectories(directory_ + "/blobs/sha256", 0755));
  return CreateFileExclusively(directory_ + "/oci-layout",
                               JsonText({{"imageLayoutVersion", "1.0.0"}}), kLayoutFileMode);
}

Result<LayoutBlob> OciLayoutWriter::AddFile(const std::string& path,
                                            const std::function<void(uint64_t)>& on_progress) {
  ASSIGN_OR_RETURN(LayoutBlob blob, BlobOfFile(path, on_progress));
  if (chmod(path.c_str(), kLayoutFileMode) != 0 ||
      rename(path.c_str(), PathOf(blob.digest).c_str()) != 0) {
    return Status::FromErrno(errno, "move " + path);
  }
  return blob;
}

Result<LayoutBlob> OciLayoutWriter::AddText(const std::string& text) {
  LayoutBlob blob = {DigestOf(text), text.size()};
  RETURN_IF_ERROR(CreateFileExclusively(PathOf(blob.digest), text, kLayoutFileMode));
  return blob;
}

Status OciLayoutWriter::Finish(const LayoutBlob& manifest, const json& platform) {
  json entry = manifest.Descriptor(kOciManifestType);
  entry["platform"] = platform;
  entry["annotations"] = {{kTagAnnotation, kTag}};
  const json index = {{"schemaVersion", 2},
                      {"mediaType", kIndexType},
                      {"manifests", json::array({std::move(entry)})}};
  return CreateFileExclusively(directory_ + "/index.json", JsonText(index), kLayoutFileMode);
}

}  // namespace host
