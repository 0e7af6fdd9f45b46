#include "cli/manifest_origin.h"

#include <sys/stat.h>

#include <cerrno>
#include <vector>

#include "cli/content_digest.h"
#include "cli/files.h"
#include "cli/skopeo.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr char kTagName[] = "org.opencontainers.image.ref.name";
// What skopeo allows for the same texts of a registry.
constexpr off_t kTextBytesMax = 4 << 20;

class LayoutOrigin : public ManifestOrigin {
 public:
  explicit LayoutOrigin(std::string directory) : directory_(std::move(directory)) {}

  Result<std::string> Manifest(const std::string& tag_or_digest) override;
  Result<std::string> Config(const std::string&, const std::string& config_digest) override;

 private:
  Result<std::string> Blob(const std::string& digest) const;
  // By the index; without a tag, of the only image.
  Result<std::string> TagDigest(const std::string& tag) const;

  const std::string directory_;
};

Result<std::string> LayoutOrigin::Manifest(const std::string& tag_or_digest) {
  if (IsDigest(tag_or_digest)) return Blob(tag_or_digest);
  ASSIGN_OR_RETURN(const std::string digest, TagDigest(tag_or_digest));
  ASSIGN_OR_RETURN(std::string text, Blob(digest));
  if (const std::string got = DigestOf(text); got != digest) {
    return Status(EBADMSG, "what it has for " + digest + " has the digest " + got);
  }
  return text;
}

Result<std::string> LayoutOrigin::Config(const std::string&, const std::string& config_digest) {
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
  RegistryOrigin(const ImageReference& reference, RegistryAccess access,
                 std::chrono::milliseconds timeout);

  Result<std::string> Manifest(const std::string& tag_or_digest) override;
  Result<std::string> Config(const std::string& manifest_digest, const std::string&) override;

 private:
  // Of the first that can say, so a mirror serves while the registry is away.
  Result<std::string> Inspect(const std::vector<std::string>& what, const std::string& which);
  Status InWords(const Status& why) const;

  const RegistryAccess access_;
  const std::chrono::milliseconds timeout_;
  std::vector<std::string> repositories_;
  std::unique_ptr<Skopeo> skopeo_;  // Made at the first question: there may be none.
};

RegistryOrigin::RegistryOrigin(const ImageReference& reference, RegistryAccess access,
                               std::chrono::milliseconds timeout)
    : access_(std::move(access)), timeout_(timeout) {
  repositories_.push_back(reference.registry + "/" + reference.repository);
  for (const std::string& mirror : access_.mirrors) {
    repositories_.push_back(mirror + "/" + reference.repository);
  }
}

Result<std::string> RegistryOrigin::Manifest(const std::string& tag_or_digest) {
  return Inspect({"--raw"}, tag_or_digest);
}

Result<std::string> RegistryOrigin::Config(const std::string& manifest_digest, const std::string&) {
  return Inspect({"--config", "--raw"}, manifest_digest);
}

Result<std::string> RegistryOrigin::Inspect(const std::vector<std::string>& what,
                                            const std::string& which) {
  if (!skopeo_) {
    ASSIGN_OR_RETURN(skopeo_, Skopeo::Make(access_));
  }
  Status first;
  for (const std::string& repository : repositories_) {
    std::vector<std::string> arguments = {"inspect"};
    arguments.insert(arguments.end(), what.begin(), what.end());
    for (std::string& flag : skopeo_->AccessFlags("")) arguments.push_back(std::move(flag));
    arguments.push_back("docker://" + repository + (IsDigest(which) ? "@" : ":") + which);
    Result<std::string> text = skopeo_->Run(arguments, Deadline(timeout_));
    if (text.ok() || text.status().error() == EINTR) return text;
    if (first.ok()) first = InWords(text.status());
    // A mirror that still has a tag which the registry has no more is behind.
    if (text.status().error() == ENOENT && !IsDigest(which)) break;
  }
  return first;
}

Status RegistryOrigin::InWords(const Status& why) const {
  if (why.error() == ENOENT) {
    return Status(ENOENT, "the registry has no such image: " + why.message());
  }
  if (why.error() != ETIMEDOUT) return why;
  return Status(ETIMEDOUT,
                "the registry did not answer within " + std::to_string(timeout_.count()) + " ms");
}

}  // namespace

std::unique_ptr<ManifestOrigin> MakeManifestOrigin(const ImageReference& reference,
                                                   const RegistryAccess& access,
                                                   std::chrono::milliseconds timeout) {
  if (reference.kind == ImageReference::Kind::kLayout) {
    return std::make_unique<LayoutOrigin>(reference.directory);
  }
  return std::make_unique<RegistryOrigin>(reference, access, timeout);
}

}  // namespace cli
