#include "fetcher/source_table.h"

#include <utility>

namespace fetcher {

using cachecore::Result;

Result<Source> SourceTable::Open(const std::string& volume) {
  ASSIGN_OR_RETURN(const SourceConfig config, LoadSourceConfig(dir_, volume));
  Source source;
  for (const std::string& url : config.origins) source.push_back(OpenOrigin(url, config));
  std::erase_if(origins_, [](const auto& entry) { return entry.second.expired(); });
  return source;
}

std::shared_ptr<Origin> SourceTable::OpenOrigin(const std::string& url,
                                                const SourceConfig& config) {
  const bool is_file = url.starts_with("file:");
  std::vector<std::string> key = {url};
  if (!is_file) key.insert(key.end(), {config.query, config.ca_file});
  std::weak_ptr<Origin>& known = origins_[key];
  if (auto origin = known.lock()) return origin;
  auto origin = std::make_shared<Origin>();
  origin->name = RedactUrl(url);
  origin->max_transfers = connections_;
  if (is_file) {
    origin->backend = std::make_unique<FileBackend>(url, file_);
  } else {
    HttpSite site;
    site.base_url = url;
    site.query = config.query;
    site.ca_file = config.ca_file;
    origin->backend = std::make_unique<HttpBackend>(std::move(site), http_);
  }
  known = origin;
  return origin;
}

}  // namespace fetcher
