#include "fetcher/origins/source_table.h"

#include <utility>

#include "fetcher/origins/registry_site.h"
#include "fetcher/origins/s3_backend.h"
#include "fetcher/transfer/object_attr.h"

namespace fetcher {
namespace {

// With what the registry has of its own.
RegistryConfig RegistryConfigOf(const std::string& url, const SourceConfig& config) {
  RegistryConfig registry;
  registry.url = url;
  registry.options = config.registry;
  registry.route = {config.ca_file, false, true, config.proxy};
  registry.certificate = {config.files.client_cert, config.files.client_key, ""};
  const auto own = config.registries.find(registry.Registry());
  if (own == config.registries.end()) return registry;
  registry.route.ca_file = own->second.ca_file;
  registry.route.adds_ca = true;
  registry.route.verifies_tls = !own->second.insecure;
  registry.certificate = {own->second.client_cert, own->second.client_key, ""};
  return registry;
}

std::vector<std::string> FileIdentity(const std::string& volume, const std::string& url,
                                      const SourceConfig& config) {
  std::vector<std::string> identity = {url};
  if (!config.local.empty()) identity.push_back(volume);
  for (const LocalFile& file : config.local) {
    identity.push_back(file.url + " " + file.pin.path + " " + std::to_string(file.pin.owner) + " " +
                       std::to_string(file.pin.inode));
  }
  return identity;
}

std::vector<std::string> RegistryIdentity(const std::string& url, const SourceConfig& config) {
  const RegistryConfig registry = RegistryConfigOf(url, config);
  return {url,
          registry.route.ca_file,
          registry.certificate.client_cert,
          registry.certificate.client_key,
          registry.options.AuthFilesText(),
          registry.IsPlainHttp() ? "http" : "https",
          registry.route.verifies_tls ? "" : "insecure",
          config.proxy.http,
          config.proxy.https,
          config.proxy.no};
}

// All that defines an origin.
std::vector<std::string> OriginIdentity(OriginScheme scheme, const std::string& volume,
                                        const std::string& url, const SourceConfig& config) {
  const cachecore::ProxySettings& proxy = config.proxy;
  const S3Options& s3 = config.s3;
  switch (scheme) {
    case OriginScheme::kFile:
      return FileIdentity(volume, url, config);
    case OriginScheme::kS3:
      return {url,        config.ca_file,      s3.endpoint,    s3.region,
              s3.profile, s3.credentials_file, s3.config_file, s3.path_style ? "path" : "",
              proxy.http, proxy.https,         proxy.no};
    case OriginScheme::kRegistry:
      return RegistryIdentity(url, config);
    case OriginScheme::kHttp:
      break;
  }
  return {url,
          config.query,
          config.ca_file,
          config.files.client_cert,
          config.files.client_key,
          config.files.headers,
          proxy.http,
          proxy.https,
          proxy.no};
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
    ASSIGN_OR_RETURN(std::shared_ptr<Origin> origin, OpenOrigin(volume, url, config));
    source.origins.push_back(std::move(origin));
  }
  std::erase_if(origins_, [](const auto& entry) { return entry.second.expired(); });
  return source;
}

bool SourceTable::IsOther(const std::string& volume, const std::string& stamp) const {
  const Result<SourceConfig> config = files_->ReadSource(volume);
  return config.ok() && config->stamp != stamp;
}

Result<std::shared_ptr<Origin>> SourceTable::OpenOrigin(const std::string& volume,
                                                        const std::string& url,
                                                        const SourceConfig& config) {
  ASSIGN_OR_RETURN(const OriginScheme scheme, OriginSchemeOf(url));
  std::weak_ptr<Origin>& known = origins_[OriginIdentity(scheme, volume, url, config)];
  if (auto origin = known.lock()) return origin;
  auto origin = std::make_shared<Origin>(connections_);
  origin->name = PinName(RedactUrl(url));
  origin->backend = MakeBackend(scheme, volume, url, config);
  known = origin;
  return origin;
}

std::unique_ptr<Backend> SourceTable::MakeBackend(OriginScheme scheme, const std::string& volume,
                                                  const std::string& url,
                                                  const SourceConfig& config) const {
  const HttpRoute route = {config.ca_file, false, true, config.proxy};
  switch (scheme) {
    case OriginScheme::kFile: {
      std::vector<LocalFile> objects;
      for (const LocalFile& file : config.local) {
        if (!file.url.empty()) objects.push_back(file);
      }
      return std::make_unique<FileBackend>(url, volume, std::move(objects), files_, file_);
    }
    case OriginScheme::kS3:
      return std::make_unique<S3Backend>(url, route, config.s3, environment_, http_);
    case OriginScheme::kRegistry:
      return std::make_unique<HttpBackend>(MakeRegistrySite(RegistryConfigOf(url, config), http_),
                                           http_);
    case OriginScheme::kHttp:
      break;
  }
  HttpSite site;
  site.base_url = url;
  site.query = config.query;
  site.route = route;
  // Not over http: each host on the way could read them.
  if (url.starts_with("https:") && !config.files.empty()) {
    site.authorizer = MakeFileAuthorizer(config.files, http_);
  }
  return std::make_unique<HttpBackend>(std::move(site), http_);
}

}  // namespace fetcher
