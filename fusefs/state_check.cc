#include "fusefs/state_check.h"

#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "cachecore/rocksdb_metadata_store.h"
#include "cachecore/unique_fd.h"
#include "fusefs/fuse_server.h"
#include "fusefs/request_log.h"

namespace fusefs {

using cachecore::Result;
using cachecore::Status;

namespace {

constexpr int kTries = 10;
constexpr std::chrono::milliseconds kPause(50);

// The daemon that has the database open may remove a file of it while we open ours.
Result<uint32_t> CheckSchema(const std::string& directory) {
  Result<uint32_t> version = cachecore::CheckRocksDbSchema(directory);
  for (int tries = 1; !version.ok() && version.status().error() != EPROTO && tries < kTries;
       ++tries) {
    std::this_thread::sleep_for(kPause);
    version = cachecore::CheckRocksDbSchema(directory);
  }
  return version;
}

}  // namespace

Result<std::string> CheckState(const DaemonConfig& config) {
  ASSIGN_OR_RETURN(const uint32_t schema, CheckSchema(config.cache_dir + "/db"));
  ASSIGN_OR_RETURN(std::unique_ptr<RequestLog> log, RequestLog::Open(cachecore::UniqueFd()));
  FuseServer server(config.fuse, config.run_dir + "/fuse.init", std::move(log), nullptr,
                    nullptr);
  RETURN_IF_ERROR(server.CheckReplay());
  return "can take over " + config.cache_dir + " (schema " + std::to_string(schema) + ") and " +
         config.fuse_dir;
}

}  // namespace fusefs
