#include "host/watch/shown_paths.h"

#include "host/mounts/layer_mounts.h"
#include "host/mounts/mount_record.h"

namespace host {
namespace {

// How long a new mount may be missing.
constexpr std::chrono::seconds kRecordsAreGoodFor{1};

}  // namespace

std::vector<std::string> ShownPaths::Of(const std::string& volume, const std::string& object) {
  const cachecore::Duration now = cachecore::Clock::Monotonic().Now();
  if (read_at_.count() < 0 || now - read_at_ > kRecordsAreGoodFor) {
    read_at_ = now;
    paths_.clear();
    const std::vector<MountRecord> records = ListMountRecords(instance_);
    for (const MountRecord& record : records) {
      const std::string below = record.kind == "file" ? "/" + record.object : "";
      for (const std::string& point : ShownAt(record, records)) {
        paths_[{record.volume, record.object}].push_back(point + below);
      }
    }
  }
  const auto found = paths_.find({volume, object});
  return found == paths_.end() ? std::vector<std::string>() : found->second;
}

}  // namespace host
