#include "fusefs/kept_totals.h"

#include <glog/logging.h>

#include <cerrno>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/system/files.h"

namespace fusefs {

using cachecore::Result;
using cachecore::Status;
using cachecore::Totals;
using cachecore::UniqueFd;

namespace {

constexpr char kName[] = "totals";

}  // namespace

KeptTotals::KeptTotals(const std::string& cache_dir, FdStore* store)
    : path_(cache_dir + "/" + kName) {
  cachecore::RemoveAbandonedWrites(cache_dir);
  if (UniqueFd memory = store->Take(kName); memory.valid()) {
    Result<std::unique_ptr<Totals>> left = Totals::Open(std::move(memory));
    if (left.ok()) {
      totals_ = std::move(*left);
      return;
    }
    LOG(WARNING) << left.status().message() << "; the counters go on from " << path_;
    store->Remove(kName);
  }
  Result<std::unique_ptr<Totals>> made = Totals::Open(UniqueFd());
  if (!made.ok()) {
    LOG(ERROR) << made.status().message() << "; nothing is counted for holdfast metrics";
    return;
  }
  totals_ = std::move(*made);
  const Result<std::string> text = cachecore::ReadFile(path_);
  if (text.ok()) {
    const Status added = totals_->Add(*text);
    LOG_IF(WARNING, !added.ok()) << path_ << ": " << added.message() << "; they begin at 0";
  } else if (text.status().error() != ENOENT) {
    LOG(WARNING) << text.status().message() << "; the counters begin at 0";
  }
  if (!store->available()) return;
  const Status stored = store->Store(kName, totals_->memory());
  LOG_IF(WARNING, !stored.ok()) << stored.message() << "; a crash loses what was counted since "
                                << path_ << " was written";
  cachecore::FaultPoint(cachecore::Fault::kTotalsStored);
}

void KeptTotals::Keep() {
  if (totals_ == nullptr) return;
  std::string text = totals_->Text();
  if (text == kept_) return;
  const Status written = cachecore::WriteFileAtomically(path_, text, 0600);
  LOG_IF(WARNING, !written.ok() && !is_failing_)
      << "the counters are in memory alone: " << written.message();
  is_failing_ = !written.ok();
  if (written.ok()) kept_ = std::move(text);
}

}  // namespace fusefs
