#include "host/registries/image_reference.h"

#include <cerrno>
#include <filesystem>
#include <regex>

#include "cachecore/base/digest.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/url/url.h"

namespace host {
namespace {

using cachecore::IsDigest;
using cachecore::LowerCase;
using cachecore::ParseUrl;
using cachecore::Result;
using cachecore::Status;
using cachecore::WithoutUser;
using ReferenceKind = ImageReference::Kind;

constexpr char kRegistryScheme[] = "oci://";
constexpr char kBlobScheme[] = "oci-blob://";
constexpr char kLayoutScheme[] = "oci-layout:";
// Both keep what is made of a name within one path component and within a URL.
constexpr size_t kRepositoryBytesMax = 255;
constexpr size_t kRegistryBytesMax = 255;

Status Bad(const std::string& reference, const std::string& what) {
  return Status(EINVAL, "'" + reference + "' " + what);
}

bool IsRegistry(const std::string& text) {
  static const std::regex form(
      R"(([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*)"
      R"(|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)");
  return text.size() <= kRegistryBytesMax && std::regex_match(text, form) &&
         ParseUrl(kRegistryScheme + text);
}

bool IsRepository(const std::string& text) {
  static const std::regex form(
      R"([a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*)");
  return text.size() <= kRepositoryBytesMax && std::regex_match(text, form);
}

bool IsTag(const std::string& text) {
  static const std::regex form(R"([A-Za-z0-9_][A-Za-z0-9._-]{0,127})");
  return std::regex_match(text, form);
}

Status CheckDigest(const std::string& reference, const std::string& digest) {
  if (IsDigest(digest)) return {};
  return Bad(reference, "has the bad digest '" + digest +
                            "'; a digest is sha256: and 64 hex digits in lower case");
}

Result<ImageReference> ParseLayout(const std::string& text) {
  ImageReference reference;
  reference.kind = ReferenceKind::kLayout;
  std::string path = text.substr(sizeof kLayoutScheme - 1);
  // A colon or @ in a directory's name is neither the tag's nor the digest's.
  if (const size_t at = path.rfind("@sha256:");
      at != std::string::npos && path.find('/', at) == std::string::npos) {
    reference.digest = path.substr(at + 1);
    RETURN_IF_ERROR(CheckDigest(text, reference.digest));
    path.resize(at);
  }
  const size_t colon = path.rfind(':');
  if (colon != std::string::npos && path.find('/', colon) == std::string::npos) {
    reference.tag = path.substr(colon + 1);
    path.resize(colon);
    if (!IsTag(reference.tag)) return Bad(text, "has the bad tag '" + reference.tag + "'");
  }
  if (!reference.digest.empty()) reference.tag.clear();  // The digest alone decides.
  if (path.empty()) return Bad(text, "names no directory; a layout is oci-layout:DIR[:TAG]");
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return Status::FromErrno(error.value(), path);
  reference.directory = absolute.lexically_normal().string();
  while (reference.directory.size() > 1 && reference.directory.back() == '/') {
    reference.directory.pop_back();
  }
  return reference;
}

Result<ImageReference> ParseRemote(const std::string& text, size_t scheme_length,
                                   ReferenceKind kind) {
  const std::string shown = WithoutUser(text);
  if (shown != text) {
    return Bad(shown,
               "was given with a user name or password; all users could read it in the process "
               "list, so it is not accepted there; use --auth-file");
  }
  ImageReference reference;
  reference.kind = kind;
  std::string rest = text.substr(scheme_length);
  const size_t slash = rest.find('/');
  reference.registry = LowerCase(rest.substr(0, slash));
  if (slash == std::string::npos || !IsRegistry(reference.registry)) {
    return Bad(text, "names no registry; a reference is oci://HOST[:PORT]/REPO:TAG");
  }
  rest = rest.substr(slash + 1);
  if (const size_t at = rest.find('@'); at != std::string::npos) {
    reference.digest = rest.substr(at + 1);
    RETURN_IF_ERROR(CheckDigest(text, reference.digest));
    rest.resize(at);
  }
  if (const size_t colon = rest.find(':'); colon != std::string::npos) {
    reference.tag = rest.substr(colon + 1);
    if (!IsTag(reference.tag)) return Bad(text, "has the bad tag '" + reference.tag + "'");
    rest.resize(colon);
  }
  if (!IsRepository(rest)) {
    return Bad(text, "has the bad repository name '" + rest +
                         "'; it consists of a-z 0-9 . _ - and slashes between them");
  }
  reference.repository = rest;
  if (!reference.digest.empty()) {
    reference.tag.clear();  // The digest alone decides.
  } else if (kind == ReferenceKind::kBlob) {
    return Bad(text, "has no digest; a blob is oci-blob://HOST[:PORT]/REPO@sha256:HEX");
  } else if (reference.tag.empty()) {
    return Bad(text, "has neither tag nor digest; add :TAG (:latest, say) or @sha256:HEX");
  }
  return reference;
}

bool HasScheme(const std::string& text, const std::string& scheme) {
  return LowerCase(text.substr(0, scheme.size())) == scheme;
}

}  // namespace

std::string ImageReference::Text() const {
  const std::string which = digest.empty() ? (tag.empty() ? "" : ":" + tag) : "@" + digest;
  if (kind == ReferenceKind::kLayout) return kLayoutScheme + directory + which;
  const char* scheme = kind == ReferenceKind::kBlob ? kBlobScheme : kRegistryScheme;
  return scheme + registry + "/" + repository + which;
}

bool IsImageReference(const std::string& text) {
  return HasScheme(text, kRegistryScheme) || HasScheme(text, kBlobScheme) ||
         HasScheme(text, kLayoutScheme);
}

Result<ImageReference> ParseLayoutArgument(const std::string& text) {
  if (IsImageReference(text)) return ParseImageReference(text);
  std::error_code error;
  // With a slash behind it, a colon in the directory's name begins no tag.
  const char* const end = std::filesystem::is_directory(text, error) ? "/" : "";
  return ParseImageReference(kLayoutScheme + text + end);
}

std::string HintForPath(const std::string& text) {
  std::error_code error;
  const auto status = std::filesystem::status(text, error);
  if (!cachecore::UrlScheme(text).empty() || error) return "";
  if (std::filesystem::is_directory(status)) {
    return std::filesystem::exists(text + "/oci-layout", error)
               ? "; this directory is an OCI layout: oci-layout:" + text
               : "; to make an image of this directory: holdfast image build " + text +
                     " OUT; the image is then oci-layout:OUT";
  }
  const std::filesystem::path absolute = std::filesystem::absolute(text, error);
  if (error || !std::filesystem::is_regular_file(status)) return "";
  return "; this file is file://" + absolute.lexically_normal().string() +
         " (an image or any file)";
}

Result<ImageReference> ParseImageReference(const std::string& text) {
  if (HasScheme(text, kLayoutScheme)) return ParseLayout(text);
  if (HasScheme(text, kBlobScheme)) {
    return ParseRemote(text, sizeof kBlobScheme - 1, ReferenceKind::kBlob);
  }
  if (HasScheme(text, kRegistryScheme)) {
    return ParseRemote(text, sizeof kRegistryScheme - 1, ReferenceKind::kRegistry);
  }
  std::error_code error;
  const std::string local(cachecore::UrlScheme(text) == "file" ? cachecore::AfterScheme(text) : "");
  const bool is_directory_url = std::filesystem::is_directory(local, error);
  return Bad(WithoutUser(text),
             std::string("is not an image reference; use oci://HOST/REPO:TAG, ") +
                 "oci://HOST/REPO@sha256:HEX, "
                 "oci-layout:DIR[:TAG] or oci-blob://HOST/REPO@sha256:HEX" +
                 HintForPath(is_directory_url ? local : text));
}

Status CheckMirror(const std::string& text) {
  const size_t slash = text.find('/');
  const bool has_prefix = slash != std::string::npos;
  if (IsRegistry(text.substr(0, slash)) && (!has_prefix || IsRepository(text.substr(slash + 1)))) {
    return {};
  }
  return Status(EINVAL, "the mirror '" + WithoutUser("oci://" + text).substr(6) +
                            "' is not HOST[:PORT][/PREFIX]");
}

}  // namespace host
