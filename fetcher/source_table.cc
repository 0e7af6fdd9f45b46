#include "fetcher/source_table.h"

#include <utility>

#include "fetcher/object_attr.h"
#include "fetcher/registry_site.h"
#include "fetcher/s3_backend.h"

namespace fetcher {
namespace {

// All that defines an origin.
std::vector<std::string> OriginIdentity(const std::string& volume, const std::string& url,
                                        const SourceConfig& config) {
  if (url.starts_with("file:")) {
    std::vector<std::string> identity = {url};
    if (!config.local.empty()) identity.push_back(volume);
    for (const LocalFile& file : config.local) {
      identity.push_back(file.url + " " + file.pin.path + " " + std::to_string(file.pin.owner) +
                         " " + std::to_string(file.pin.inode));
    }
    return identity;
  }
  if (url.starts_with("s3:")) {
    const S3Options& s3 = config.s3;
    return {url,        config.ca_file,      s3.endpoint,    s3.region,
            s3.profile, s3.credentials_file, s3.config_file, s3.path_style ? "path" : ""};
  }
  if (url.starts_with("oci:")) {
    return {url,
            config.ca_file,
            config.files.client_cert,
            config.files.client_key,
            config.registry.auth_file,
            config.registry.plain_http ? "http" : "https"};
  }
  return {url,
          config.query,
          config.ca_file,
          config.files.client_cert,
          config.files.client_key,
          config.files.headers};
}

}  // namespace

using cachecore::Result;

Result<Source> SourceTable::Open(const std::string& volume) {
  ASSIGN_OR_RETURN(const SourceConfig config, files_->ReadSource(volume));
  Source source;
  source.verity = config.verity;
  source.merkle = config.merkle;
  source.stamp = config.stamp;
  for (const std::string& url : config.origins) {
    source.origins.push_back(OpenOrigin(volume, url, config));
  }
  std::erase_if(origins_, [](const auto& entry) { return entry.second.expired(); });
  return source;
}

bool SourceTable::IsOther(const std::string& volume, const std::string& stamp) const {
  const Result<SourceConfig> config = files_->ReadSource(volume);
  return config.ok() && config->stamp != stamp;
}

std::shared_ptr<Origin> SourceTable::OpenOrigin(const std::string& volume, const std::string& url,
                                                const SourceConfig& config) {
  std::weak_ptr<Origin>& known = origins_[OriginIdentity(volume, url, config)];
  if (auto origin = known.lock()) return origin;
  auto origin = std::make_shared<Origin>();
  origin->name = PinName(RedactUrl(url));
  origin->max_transfers = connections_;
  origin->backend = MakeBackend(volume, url, config);
  known = origin;
  return origin;
}

std::unique_ptr<Backend> SourceTable::MakeBackend(const std::string& volume,
                                                  const std::string& url,
                                                  const SourceConfig& config) const {
  if (url.starts_with("file:")) {
    std::vector<LocalFile> objects;
    for (const LocalFile& file : config.local) {
      if (!file.url.empty()) objects.push_back(file);
    }
    return std::make_unique<FileBackend>(url, volume, std::move(objects), files_, file_);
  }
  if (url.starts_with("s3:")) {
    return std::make_unique<S3Backend>(url, config.ca_file, config.s3, environment_, http_);
  }
  if (url.starts_with("oci:")) {
    return std::make_unique<HttpBackend>(
        MakeRegistrySite({url, config.registry, config.ca_file,
                          CredentialFiles{config.files.client_cert, config.files.client_key, ""}},
                         http_),
        http_);
  }
  HttpSite site;
  site.base_url = url;
  site.query = config.query;
  site.ca_file = config.ca_file;
  // Not over http: everybody on the way could read them.
  if (url.starts_with("https:") && !config.files.empty()) {
    site.authorizer = MakeFileAuthorizer(config.files, http_);
  }
  return std::make_unique<HttpBackend>(std::move(site), http_);
}

}  // namespace fetcher
