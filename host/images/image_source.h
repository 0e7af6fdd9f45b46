// ImageSource: where the bytes of one remote object come from, and what the object is called here.
//
// Model    An image URL is split after its last '/': a base, which goes to the fetcher as an
//          origin, and the object's name (the cookie), kept percent-encoded as it was given.  Every
//          origin of one source serves the same object, so all end in the same name and query.  The
//          volume holds just this object; its name is a readable part and a hash of all that
//          selects content: the origins' URLs, sorted, with what of the query is no signature; the
//          headers that are no credentials; the S3 endpoint; the digest.  So neither a renewed
//          signature nor another order of origins makes a new volume, and another version of the
//          object does.  A blob of a registry is named by its digest, the same in every mirror, so
//          only the first origin counts.
// Errors   EINVAL, with a sentence that says what is wrong with which URL.  A password is never
//          quoted.
// Threads  immutable values.
// See      holdfast(1) URLS; docs/protocol.md "Sources".

#ifndef HOST_IMAGES_IMAGE_SOURCE_H_
#define HOST_IMAGES_IMAGE_SOURCE_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/url/proxy_settings.h"
#include "cachecore/values/limits.h"
#include "host/images/origin_access.h"

namespace host {

inline constexpr size_t kObjectNameBytesMax = cachecore::kMaxCookieKeySize;

struct ImageUrl {
  std::string base;    // "http://host:port/dir/": scheme and host in lower case, no default port.
  std::string object;  // Last path component.
  std::string query;   // "" or "?...".

  // What may be shown and recorded: everything but the query, which may hold a signature.
  std::string Public() const { return base + object; }
};

// http, https, s3 and file URLs.
cachecore::Result<ImageUrl> ParseImageUrl(const std::string& text);

struct ImageSource {
  std::vector<ImageUrl> origins;                  // In order of preference; at least one.
  OriginAccess access = {};                       // Resolved.
  std::string auth_file = "";                     // For registries: absolute path, or "" for none.
  std::vector<std::string> more_auth_files = {};  // For what that says nothing of.
  bool has_default_auth_file = false;             // These files were found, not given.
  bool plain_http = false;                        // For registries.
  std::string verity = "";        // "sha256:HEX": the fs-verity digest, or "" for none.
  std::string merkle = "";        // The name of its Merkle tree beside it, or "" for the usual one.
  bool path_is_identity = false;  // The query selects nothing.
  std::string headers = "";       // IdentityOfHeaders of the headers file.
  std::string named = "";  // Of a registry: "oci://REGISTRY/REPO/" as it was named, wherever it is.
  nlohmann::json registries = {};       // By host: what each has of its own.
  nlohmann::json files = {};            // FilesOfSource, once it is to be mounted.
  cachecore::ProxySettings proxy = {};  // Empty: the fetcher's environment decides.

  bool IsOfRegistry() const { return origins.front().base.starts_with("oci://"); }
  std::string Volume() const;
  const std::string& Object() const { return origins.front().object; }
  std::string PublicUrl() const {
    return (named.empty() ? origins.front().base : named) + Object();
  }
  // The contents of sources/VOLUME.json, which the fetcher reads.
  nlohmann::json ToJson() const;
};

// `urls`: the image's URL and then those of --origin.
cachecore::Result<ImageSource> MakeImageSource(const std::vector<std::string>& urls,
                                               const OriginAccess& access);

// How a source differs from the one of the same volume that is in use.
enum class SourceChange {
  kNone,       // Or in the order of its origins, which changes no byte.
  kSignature,  // In the query alone.
  kAccess,     // In the credentials of the fetcher, or in the check of what it fetches.
};
// `ignores_auth_files`: where registry credentials are is no difference.
SourceChange CompareSources(const nlohmann::json& in_use, const nlohmann::json& wanted,
                            bool ignores_auth_files = false);

// The proxies of this process's environment; none, with a line on stderr, if one has a user or
// password, which no source file may hold.
cachecore::ProxySettings ProxyForSources();

// A path as a URL has it.
std::string PercentEncodePath(const std::string& path);

}  // namespace host

#endif  // HOST_IMAGES_IMAGE_SOURCE_H_
