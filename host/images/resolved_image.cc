#include "host/images/resolved_image.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <functional>
#include <iostream>
#include <memory>

#include "cachecore/base/digest.h"
#include "cachecore/system/files.h"
#include "host/images/holdfast_manifest.h"
#include "host/images/image_store.h"
#include "host/images/manifest_origin.h"
#include "host/registries/registries_conf.h"
#include "host/registries/registry_policy.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

// A layer that is there twice adds nothing where it is lower, and an overlay takes it once.
std::vector<ImageLayer> WithoutHidden(const std::vector<ImageLayer>& layers) {
  std::vector<ImageLayer> shown;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto above = layers.begin() + static_cast<std::ptrdiff_t>(i) + 1;
    if (std::find(above, layers.end(), layers[i]) == layers.end()) shown.push_back(layers[i]);
  }
  return shown;
}

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
  // Of those for this machine one whose bytes can be checked, else the first that can be mounted.
  Result<std::string> Choose(const json& list);
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
    ASSIGN_OR_RETURN(image.manifest, Choose(top));
  }
  image.manifest_digest = DigestOf(image.manifest);
  ASSIGN_OR_RETURN(const HoldfastManifest parts, ParseMountableManifest(image.manifest, name_));
  image.layers = WithoutHidden(parts.layers);
  image.verity = parts.verity;
  image.merkle_digest = parts.merkle_digest;
  ASSIGN_OR_RETURN(image.config, Text(parts.config_digest, [&] {
                     return origin_.Config(image.manifest_digest, parts.config_digest, deadline_);
                   }));
  const json config = json::parse(image.config, nullptr, /*allow_exceptions=*/false);
  RETURN_IF_ERROR(CheckNativeConfig(config, parts, name_));
  return image;
}

Result<std::string> Resolver::Choose(const json& list) {
  ASSIGN_OR_RETURN(const std::vector<std::string> digests,
                   ManifestsFor(list, Platform::OfThisMachine(), name_));
  std::string best;
  Status first;
  for (const std::string& digest : digests) {
    ASSIGN_OR_RETURN(std::string text,
                     Text(digest, [&] { return origin_.Manifest(digest, deadline_); }));
    const Result<HoldfastManifest> parts = ParseMountableManifest(text, name_);
    if (parts.ok() && !parts->verity.empty()) return text;
    if (parts.ok() && best.empty()) best = std::move(text);
    if (!parts.ok() && first.ok()) first = parts.status();
  }
  if (best.empty()) return first;
  return best;
}

Result<std::string> Resolver::TopManifest() {
  if (reference_.digest.empty()) return TaggedManifest();
  return Text(reference_.digest, [this] { return origin_.Manifest(reference_.digest, deadline_); });
}

Result<std::string> Resolver::TaggedManifest() {
  // Where what it meant before is known, time is left to go on with that.
  const bool is_known = store_.TagDigest(name_).ok();
  Result<std::string> text =
      origin_.Manifest(reference_.tag, is_known ? Deadline(deadline_.Remaining() / 2) : deadline_);
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

Result<ImageSource> BlobSource(const ImageReference& reference, const std::string& digest,
                               const RegistryAccess& access) {
  RETURN_IF_ERROR(CheckRegistryPolicy(reference));
  ImageSource source;
  const std::string key = BlobKey(reference, digest);
  if (reference.kind == ImageReference::Kind::kLayout) {
    source.origins.push_back(
        {"file://" + PercentEncodePath(reference.directory) + "/blobs/sha256/", key, ""});
    return source;
  }
  source.named = "oci://" + reference.registry + "/" + reference.repository + "/";
  ASSIGN_OR_RETURN(const RegistriesConf conf, RegistriesConf::Load());
  ASSIGN_OR_RETURN(std::vector<PullSource> places, conf.SourcesOf(reference));
  for (const std::string& mirror : access.mirrors) {
    places.push_back({mirror + "/" + reference.repository});
  }
  const bool takes_certs_d = access.ca_file.empty() && access.client_cert.empty();
  for (const PullSource& place : places) {
    source.origins.push_back({"oci://" + place.repository + "/", key, ""});
    // As skopeo does: TLS with whatever certificate, and if there is none, without.
    if (place.is_insecure && !access.plain_http) {
      source.origins.push_back({"oci+http://" + place.repository + "/", key, ""});
    }
    ASSIGN_OR_RETURN(const RegistryCertificates found, CertificatesOf(place.Registry()));
    if (!place.is_insecure && (found.empty() || !takes_certs_d)) continue;
    json& own = source.registries[place.Registry()];
    own = {{"ca_file", takes_certs_d ? found.ca_file : access.ca_file},
           {"client_cert", takes_certs_d ? found.client_cert : access.client_cert},
           {"client_key", takes_certs_d ? found.client_key : access.client_key},
           {"insecure", place.is_insecure}};
  }
  source.access.ca_file = access.ca_file;
  source.access.client_cert = access.client_cert;
  source.access.client_key = access.client_key;
  source.auth_file = access.auth_file;
  source.more_auth_files = access.more_auth_files;
  source.has_default_auth_file = access.has_default_auth_file;
  source.plain_http = access.plain_http;
  source.proxy = ProxyForSources();
  return source;
}

}  // namespace host
