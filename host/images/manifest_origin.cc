#include "host/images/manifest_origin.h"

#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <vector>

#include "cachecore/base/digest.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"
#include "host/registries/skopeo.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::IsDigest;
using cachecore::JsonField;
using cachecore::JsonString;
using cachecore::ReadFile;
using cachecore::ReadJsonFile;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr char kTagName[] = "org.opencontainers.image.ref.name";
// What skopeo allows for the same texts of a registry.
constexpr off_t kTextBytesMax = 4 << 20;

class LayoutOrigin : public ManifestOrigin {
 public:
  explicit LayoutOrigin(std::string directory) : directory_(std::move(directory)) {}

  Result<std::string> Manifest(const std::string& tag_or_digest, const Deadline& deadline) override;
  Result<std::string> Config(const std::string&, const std::string& config_digest,
                             const Deadline&) override;

 private:
  Result<std::string> Blob(const std::string& digest) const;
  // By the index; without a tag, of the only image.
  Result<std::string> TagDigest(const std::string& tag) const;

  const std::string directory_;
};

Result<std::string> LayoutOrigin::Manifest(const std::string& tag_or_digest, const Deadline&) {
  if (IsDigest(tag_or_digest)) return Blob(tag_or_digest);
  ASSIGN_OR_RETURN(const std::string digest, TagDigest(tag_or_digest));
  ASSIGN_OR_RETURN(std::string text, Blob(digest));
  if (const std::string got = DigestOf(text); got != digest) {
    return Status(EBADMSG, "what it has for " + digest + " has the digest " + got);
  }
  return text;
}

Result<std::string> LayoutOrigin::Config(const std::string&, const std::string& config_digest,
                                         const Deadline&) {
  return Blob(config_digest);
}

Result<std::string> LayoutOrigin::Blob(const std::string& digest) const {
  const std::string path = directory_ + "/blobs/sha256/" + DigestHex(digest);
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return Status::FromErrno(errno, path);
  if (info.st_size > kTextBytesMax) {
    return Status(EBADMSG, path + " is too long for a manifest or config");
  }
  return ReadFile(path);
}

Result<std::string> LayoutOrigin::TagDigest(const std::string& tag) const {
  const Result<json> index = ReadJsonFile(directory_ + "/index.json");
  if (index.status().error() == ENOENT) {
    struct stat info;
    if (stat(directory_.c_str(), &info) != 0) {
      return Status::FromErrno(errno, "not an OCI layout: " + directory_);
    }
    const std::string hint = S_ISDIR(info.st_mode) ? HintForPath(directory_) : "";
    return Status(ENOENT, "not an OCI layout: " + directory_ + " has no index.json" + hint);
  }
  if (!index.ok()) return Status(index.status()).WithContext("not an OCI layout");
  std::string there_are;
  const json* found = nullptr;
  size_t count = 0;
  for (const json& entry : JsonField(*index, "manifests")) {
    const std::string name = JsonString(JsonField(entry, "annotations"), kTagName);
    there_are += (there_are.empty() ? "" : ", ") + (name.empty() ? "one without a tag" : name);
    ++count;
    if (tag.empty() || name == tag) found = &entry;
  }
  if (count == 0) return Status(ENOENT, "the layout is empty");
  if (found == nullptr) return Status(ENOENT, "the layout has no such tag; it has " + there_are);
  if (tag.empty() && count > 1) {
    return Status(ENOENT, "the layout has several images, so say which: " + there_are);
  }
  std::string digest = JsonString(*found, "digest");
  if (!IsDigest(digest)) return Status(EBADMSG, "its index.json names no sha256 digest");
  return digest;
}

class RegistryOrigin : public ManifestOrigin {
 public:
  RegistryOrigin(const ImageReference& reference, RegistryAccess access);

  Result<std::string> Manifest(const std::string& tag_or_digest, const Deadline& deadline) override;
  Result<std::string> Config(const std::string& manifest_digest, const std::string&,
                             const Deadline& deadline) override;

 private:
  // Of the first that can say, so a mirror serves while the registry is away.
  Result<std::string> Inspect(const std::vector<std::string>& what, const std::string& which,
                              const Deadline& deadline);

  const RegistryAccess access_;
  std::vector<std::string> repositories_;
  std::unique_ptr<Skopeo> skopeo_;  // Made at the first question: there may be none.
};

// What skopeo did not say in words.
Status InWords(const Status& why, std::chrono::milliseconds limit) {
  if (why.error() == ENOENT) {
    return Status(ENOENT, "the registry has no such image: " + why.message());
  }
  if (why.error() != ETIMEDOUT) return why;
  return Status(ETIMEDOUT,
                "the registry did not answer within " + std::to_string(limit.count()) + " ms");
}

RegistryOrigin::RegistryOrigin(const ImageReference& reference, RegistryAccess access)
    : access_(std::move(access)) {
  repositories_.push_back(reference.registry + "/" + reference.repository);
  for (const std::string& mirror : access_.mirrors) {
    repositories_.push_back(mirror + "/" + reference.repository);
  }
}

Result<std::string> RegistryOrigin::Manifest(const std::string& tag_or_digest,
                                             const Deadline& deadline) {
  return Inspect({"--raw"}, tag_or_digest, deadline);
}

Result<std::string> RegistryOrigin::Config(const std::string& manifest_digest, const std::string&,
                                           const Deadline& deadline) {
  return Inspect({"--config", "--raw"}, manifest_digest, deadline);
}

Result<std::string> RegistryOrigin::Inspect(const std::vector<std::string>& what,
                                            const std::string& which, const Deadline& deadline) {
  if (!skopeo_) {
    ASSIGN_OR_RETURN(skopeo_, Skopeo::Make(access_));
  }
  Status first;
  for (size_t i = 0; i < repositories_.size(); ++i) {
    const std::string& repository = repositories_[i];
    // A registry that hangs leaves its mirrors their share of the time.
    const auto limit = deadline.Remaining() / static_cast<int>(repositories_.size() - i);
    std::vector<std::string> arguments = {"inspect"};
    arguments.insert(arguments.end(), what.begin(), what.end());
    for (std::string& flag : skopeo_->AccessFlags("")) arguments.push_back(std::move(flag));
    arguments.push_back("docker://" + repository + (IsDigest(which) ? "@" : ":") + which);
    Result<std::string> text = skopeo_->Run(arguments, Deadline(limit));
    if (text.ok() || text.status().error() == EINTR) return text;
    if (first.ok()) first = InWords(text.status(), limit);
    // A mirror that still has a tag which the registry has no more is behind.
    if (text.status().error() == ENOENT && !IsDigest(which)) break;
  }
  return first;
}

}  // namespace

std::unique_ptr<ManifestOrigin> MakeManifestOrigin(const ImageReference& reference,
                                                   const RegistryAccess& access) {
  if (reference.kind == ImageReference::Kind::kLayout) {
    return std::make_unique<LayoutOrigin>(reference.directory);
  }
  return std::make_unique<RegistryOrigin>(reference, access);
}

}  // namespace host
