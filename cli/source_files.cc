#include "cli/source_files.h"

#include <sys/stat.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "cachecore/parse_text.h"

namespace cli {
namespace {

using nlohmann::json;

constexpr std::string_view kFileScheme = "file://";

std::string RealPath(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
  return real ? real.get() : "";
}

// Where `path` leads, followed as far as it exists.
std::string Resolved(const std::string& path) {
  std::string real = RealPath(path);
  if (!real.empty()) return real;
  const size_t slash = path.rfind('/');
  real = RealPath(path.substr(0, slash + 1));
  if (real.empty()) return path;
  return (real == "/" ? "" : real) + path.substr(slash);
}

// `url` is that of an object with a digest, or without one.
json ObjectFile(const std::string& url, bool has_digest) {
  const auto path = cachecore::PercentDecode(std::string_view(url).substr(kFileScheme.size()));
  if (!path.ok()) return nullptr;  // The fetcher says so.
  const std::string real = Resolved(*path);
  json file = {{"url", url}, {"path", PercentEncodePath(real)}, {"owner", 0}};
  struct stat info;
  if (stat(real.c_str(), &info) != 0) return file;
  file["owner"] = info.st_uid;
  if (!has_digest) file["inode"] = info.st_ino;
  return file;
}

}  // namespace

json FilesOfSource(const ImageSource& source) {
  json files = json::array();
  const bool has_digest = !source.verity.empty();
  for (const ImageUrl& origin : source.origins) {
    if (!origin.base.starts_with(kFileScheme)) continue;
    const std::string merkle = source.merkle.empty() ? origin.object + ".merkle" : source.merkle;
    for (const std::string& name : {origin.object, has_digest ? merkle : std::string()}) {
      json file = name.empty() ? json() : ObjectFile(origin.base + name, has_digest);
      if (!file.is_null()) files.push_back(std::move(file));
    }
  }
  const OriginAccess& access = source.access;
  for (const std::string& path :
       {access.ca_file, access.client_cert, access.client_key, access.headers_file,
        access.s3_credentials_file, access.s3_config_file, source.auth_file}) {
    struct stat info;
    if (path.empty()) continue;
    const bool is_there = stat(path.c_str(), &info) == 0;
    files.push_back({{"path", PercentEncodePath(path)}, {"owner", is_there ? info.st_uid : 0}});
  }
  return files;
}

}  // namespace cli
