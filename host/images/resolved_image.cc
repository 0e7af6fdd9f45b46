#include "cli/resolved_image.h"

#include <cerrno>
#include <functional>
#include <iostream>
#include <memory>

#include "cli/content_digest.h"
#include "cli/files.h"
#include "cli/holdfast_manifest.h"
#include "cli/image_store.h"
#include "cli/manifest_origin.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

// Asks the store first and then the origin; what is not as its digest says goes nowhere.
class Resolver {
 public:
  Resolver(const ImageReference& reference, ManifestOrigin* origin, const ImageStore* store,
           const Deadline& deadline)
      : reference_(reference),
        name_(reference.Text()),
        origin_(*origin),
        store_(*store),
        deadline_(deadline) {}

  Result<ResolvedImage> Resolve();

 private:
  Result<std::string> TopManifest();
  // A tag can come to mean something else, so only its origin knows.
  Result<std::string> TaggedManifest();
  // The text with this digest, of the store or of `fetch`.
  Result<std::string> Text(const std::string& digest,
                           const std::function<Result<std::string>()>& fetch);

  const ImageReference& reference_;
  const std::string name_;
  ManifestOrigin& origin_;
  const ImageStore& store_;
  const Deadline& deadline_;
};

Result<ResolvedImage> Resolver::Resolve() {
  ResolvedImage image;
  image.reference = reference_;
  ASSIGN_OR_RETURN(image.manifest, TopManifest());
  const json top = json::parse(image.manifest, nullptr, /*allow_exceptions=*/false);
  if (IsManifestList(top)) {
    ASSIGN_OR_RETURN(const std::string chosen,
                     ChooseManifest(top, Platform::OfThisMachine(), name_));
    ASSIGN_OR_RETURN(image.manifest, Text(chosen, [&] { return origin_.Manifest(chosen, deadline_); }));
  }
  image.manifest_digest = DigestOf(image.manifest);
  ASSIGN_OR_RETURN(const HoldfastManifest parts, ParseHoldfastManifest(image.manifest, name_));
  image.erofs_digest = parts.erofs_digest;
  image.erofs_bytes = parts.erofs_bytes;
  image.verity = parts.verity;
  image.merkle_digest = parts.merkle_digest;
  ASSIGN_OR_RETURN(image.config, Text(parts.config_digest, [&] {
                     return origin_.Config(image.manifest_digest, parts.config_digest, deadline_);
                   }));
  return image;
}

Result<std::string> Resolver::TopManifest() {
  if (reference_.digest.empty()) return TaggedManifest();
  return Text(reference_.digest, [this] { return origin_.Manifest(reference_.digest, deadline_); });
}

Result<std::string> Resolver::TaggedManifest() {
  // Where what it meant before is known, time is left to go on with that.
  const bool is_known = store_.TagDigest(name_).ok();
  Result<std::string> text = origin_.Manifest(
      reference_.tag, is_known ? Deadline(deadline_.Remaining() / 2) : deadline_);
  if (text.ok()) {
    RETURN_IF_ERROR(store_.Keep(*text));
    RETURN_IF_ERROR(store_.KeepTag(name_, DigestOf(*text)));
    return text;
  }
  const Status why = std::move(text).status().WithContext(name_);
  // A layout is there or is not; and a registry that knows no such tag has answered.
  const bool is_answer = reference_.kind == ImageReference::Kind::kLayout ||
                         why.error() == ENOENT || why.error() == EINTR;
  if (is_answer) return why;
  const Result<std::string> digest = store_.TagDigest(name_);
  if (!digest.ok()) return why;
  Result<std::string> kept = store_.Text(*digest);
  if (!kept.ok()) return why;
  std::cerr << "holdfast: " << why.message() << "; going on with what it was before, " << *digest
            << "\n";
  return kept;
}

Result<std::string> Resolver::Text(const std::string& digest,
                                   const std::function<Result<std::string>()>& fetch) {
  if (Result<std::string> kept = store_.Text(digest); kept.ok()) return kept;
  Result<std::string> text = fetch();
  if (!text.ok()) return std::move(text).status().WithContext(name_);
  if (const std::string got = DigestOf(*text); got != digest) {
    return Status(EBADMSG, name_ + ": what came for " + digest + " has the digest " + got);
  }
  RETURN_IF_ERROR(store_.Keep(*text));
  return text;
}

}  // namespace

Result<ResolvedImage> ResolveImage(const ImageReference& reference, const RegistryAccess& access,
                                   const Instance& instance, const Deadline& deadline) {
  if (reference.kind == ImageReference::Kind::kBlob) {
    return Status(EINVAL, reference.Text() + " is one blob, not an image; use oci://");
  }
  const std::unique_ptr<ManifestOrigin> origin = MakeManifestOrigin(reference, access);
  const ImageStore store(instance);
  return Resolver(reference, origin.get(), &store, deadline).Resolve();
}

std::string BlobKey(const ImageReference& reference, const std::string& digest) {
  return reference.kind == ImageReference::Kind::kLayout ? DigestHex(digest) : digest;
}

ImageSource BlobSource(const ImageReference& reference, const std::string& digest,
                       const RegistryAccess& access) {
  ImageSource source;
  const std::string key = BlobKey(reference, digest);
  if (reference.kind == ImageReference::Kind::kLayout) {
    source.origins.push_back(
        {"file://" + PercentEncodePath(reference.directory) + "/blobs/sha256/", key, ""});
    return source;
  }
  source.origins.push_back(
      {"oci://" + reference.registry + "/" + reference.repository + "/", key, ""});
  for (const std::string& mirror : access.mirrors) {
    source.origins.push_back({"oci://" + mirror + "/" + reference.repository + "/", key, ""});
  }
  source.access.ca_file = access.ca_file;
  source.access.client_cert = access.client_cert;
  source.access.client_key = access.client_key;
  source.auth_file = access.auth_file;
  source.plain_http = access.plain_http;
  return source;
}

}  // namespace cli
