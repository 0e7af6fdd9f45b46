#include "host/images/source_files.h"

#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <vector>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/system/trusted_path.h"
#include "cachecore/url/url.h"
#include "host/registries/image_reference.h"

namespace host {
namespace {

using cachecore::JsonString;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

// Where `path` leads, followed as far as it exists.
Result<std::string> Resolved(const std::string& path) {
  Result<std::string> real = cachecore::TrustedRealPath(path);
  if (real.ok() || real.status().error() == EACCES) return real;
  const size_t slash = path.rfind('/');
  real = cachecore::TrustedRealPath(path.substr(0, slash + 1));
  if (real.status().error() == EACCES) return real;
  if (!real.ok()) return path;
  return (*real == "/" ? "" : *real) + path.substr(slash);
}

// `url` is that of an object with a digest, or without one.
Result<json> ObjectFile(const std::string& url, bool has_digest) {
  const auto path = cachecore::PercentDecode(cachecore::AfterScheme(url));
  if (!path.ok()) return json();  // The fetcher says so.
  ASSIGN_OR_RETURN(const std::string real, Resolved(*path));
  json file = {{"url", url}, {"path", PercentEncodePath(real)}, {"owner", 0}};
  const Result<cachecore::UniqueFd> found =
      cachecore::OpenTrustedPath(real, {.follows_links = false});
  struct stat info;
  if (!found.ok() || fstat(found->get(), &info) != 0) return file;
  if (S_ISDIR(info.st_mode)) {
    return Status(EISDIR, *path + " is a directory, not an image" + HintForPath(*path));
  }
  file["owner"] = info.st_uid;
  if (!has_digest) file["inode"] = info.st_ino;
  return file;
}

}  // namespace

Result<json> FilesOfSource(const ImageSource& source) {
  json files = json::array();
  const bool has_digest = !source.verity.empty();
  for (const ImageUrl& origin : source.origins) {
    if (cachecore::UrlScheme(origin.base) != "file") continue;
    const std::string merkle = source.merkle.empty() ? origin.object + ".merkle" : source.merkle;
    for (const std::string& name : {origin.object, has_digest ? merkle : std::string()}) {
      if (name.empty()) continue;
      ASSIGN_OR_RETURN(json file, ObjectFile(origin.base + name, has_digest));
      if (!file.is_null()) files.push_back(std::move(file));
    }
  }
  const OriginAccess& access = source.access;
  std::vector<std::string> paths = {
      access.ca_file,      access.client_cert,         access.client_key,
      access.headers_file, access.s3_credentials_file, access.s3_config_file,
      source.auth_file};
  paths.insert(paths.end(), source.more_auth_files.begin(), source.more_auth_files.end());
  for (const auto& [host, own] : source.registries.items()) {
    for (const char* name : {"ca_file", "client_cert", "client_key"}) {
      paths.push_back(JsonString(own, name));
    }
  }
  for (const std::string& path : paths) {
    struct stat info;
    if (path.empty()) continue;
    const bool is_there = stat(path.c_str(), &info) == 0;
    files.push_back({{"path", PercentEncodePath(path)}, {"owner", is_there ? info.st_uid : 0}});
  }
  return files;
}

}  // namespace host
