#include "fusefs/state_check.h"

#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "cachecore/base/unique_fd.h"
#include "cachecore/store/rocksdb_metadata_store.h"
#include "fusefs/server/fuse_server.h"
#include "fusefs/server/request_log.h"

namespace fusefs {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

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

// The request log of a process, or what kept us from it; ENOENT when it has none.
Result<UniqueFd> RequestLogOf(pid_t pid) {
  const std::string directory = "/proc/" + std::to_string(pid) + "/fd";
  const std::string wanted = std::string("/memfd:") + RequestLog::kMemoryName + " (deleted)";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone) != wanted) continue;
    UniqueFd memory(open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
    if (!memory.valid()) return Status::FromErrno(errno, entry.path());
    return memory;
  }
  return Status(error ? error.value() : ENOENT, "no request log of process " + std::to_string(pid));
}

}  // namespace

Result<std::string> CheckState(const DaemonConfig& config, pid_t running) {
  ASSIGN_OR_RETURN(const uint32_t schema, CheckSchema(config.cache_dir + "/db"));
  ASSIGN_OR_RETURN(std::unique_ptr<RequestLog> log, RequestLog::Open(UniqueFd()));
  FuseServer server(config.fuse, config.run_dir + "/fuse.init", std::move(log), nullptr, nullptr);
  RETURN_IF_ERROR(server.CheckReplay());
  if (running > 0 && server.NeedsRequestLog()) {
    ASSIGN_OR_RETURN(const UniqueFd memory, RequestLogOf(running));
    RETURN_IF_ERROR(RequestLog::CheckLayout(memory.get()));
  }
  return "can take over " + config.cache_dir + " (schema " + std::to_string(schema) + ") and " +
         config.fuse_dir;
}

}  // namespace fusefs
