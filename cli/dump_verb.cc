#include <iostream>
#include <memory>
#include <string>

#include "cachecore/store/rocksdb_metadata_store.h"
#include "cli/command.h"
#include "host/instance/cache_dir.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using host::CacheDirOf;
using host::CheckIsCache;
using host::Instance;
using host::InstanceOptions;

struct DumpOptions {
  InstanceOptions instance;
  std::string cache_dir;
};

int RunDump(const DumpOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const std::string cache_dir =
      options.cache_dir.empty() ? CacheDirOf(*instance) : options.cache_dir;
  const std::string database = cache_dir + "/db";
  if (const Status status = CheckIsCache(cache_dir); !status.ok()) return Fail(status);
  const Status status = cachecore::DumpRocksDbMetadata(database, std::cout);
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddDump(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<DumpOptions>();
  app->add_option("--cache-dir", options->cache_dir, "The cache directory (default: --instance's)")
      ->check(host::NotEmpty())
      ->type_name("DIR");
  options->instance.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunDump(*options); });
}

}  // namespace cli
