// SourceTable: the volumes' sources and the origins behind them, shared by all objects.
//
// Model    a source is a list of origins in order of preference, read again from its file at each
//          OPEN. Volumes that name the same origin share it, with its connections and its limit.
// Errors   those of LocalFiles::ReadSource.
// Threads  the event loop's.
// Owns     origins, as long as an object holds their source.

#ifndef FETCHER_ORIGINS_SOURCE_TABLE_H_
#define FETCHER_ORIGINS_SOURCE_TABLE_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/environment/secret_environment.h"
#include "fetcher/origins/file_backend.h"
#include "fetcher/origins/http_backend.h"
#include "fetcher/source/local_files.h"
#include "fetcher/source/source_config.h"
#include "fetcher/transfer/backend.h"
#include "fetcher/transfer/transfer_limit.h"

namespace fetcher {

struct Origin {
  std::string name;  // PinName of its URL, redacted.
  std::unique_ptr<Backend> backend;
  TransferLimit limit;
  uint32_t transfers = 0;  // Under way; above the limit after it came down.

  explicit Origin(uint32_t most_transfers) : limit(most_transfers) {}
  uint32_t idle() const { return limit.value() - std::min(limit.value(), transfers); }
};

// One of an origin's transfers, for as long as it is held.
class TransferSlot {
 public:
  explicit TransferSlot(std::shared_ptr<Origin> origin) : origin_(std::move(origin)) {
    ++origin_->transfers;
  }
  ~TransferSlot() { --origin_->transfers; }
  TransferSlot(const TransferSlot&) = delete;
  TransferSlot& operator=(const TransferSlot&) = delete;

  // Bytes of it have come.
  void Brought(uint64_t bytes, Duration now) const {
    origin_->limit.Brought(bytes, origin_->transfers, now);
  }

 private:
  const std::shared_ptr<Origin> origin_;
};

struct Source {
  std::vector<std::shared_ptr<Origin>> origins;
  std::optional<cachecore::Digest> verity;
  std::string merkle;  // "": the object's key and ".merkle".
  std::string stamp;   // Of its file's contents.
};

class SourceTable {
 public:
  // The files and the engines outlive this and every source.
  SourceTable(const LocalFiles* files, uint32_t connections,
              std::shared_ptr<const cachecore::SecretEnvironment> environment, HttpEngine* http,
              FileEngine* file)
      : files_(files),
        connections_(connections),
        environment_(std::move(environment)),
        http_(http),
        file_(file) {}

  cachecore::Result<Source> Open(const std::string& volume);
  // Whether the volume has a source now, and it is another one than that of `stamp`.
  bool IsOther(const std::string& volume, const std::string& stamp) const;

 private:
  cachecore::Result<std::shared_ptr<Origin>> OpenOrigin(const std::string& volume,
                                                        const std::string& url,
                                                        const SourceConfig& config);
  std::unique_ptr<Backend> MakeBackend(OriginScheme scheme, const std::string& volume,
                                       const std::string& url, const SourceConfig& config) const;

  const LocalFiles* const files_;
  const uint32_t connections_;
  const std::shared_ptr<const cachecore::SecretEnvironment> environment_;
  HttpEngine* const http_;
  FileEngine* const file_;
  std::map<std::vector<std::string>, std::weak_ptr<Origin>> origins_;  // By all that defines one.
};

}  // namespace fetcher

#endif  // FETCHER_ORIGINS_SOURCE_TABLE_H_
