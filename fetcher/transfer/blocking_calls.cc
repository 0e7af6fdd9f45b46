#include "fetcher/transfer/blocking_calls.h"

#include <glog/logging.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "cachecore/system/process_limits.h"

namespace fetcher {

using cachecore::Result;

Cancel::Cancel() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  PCHECK(event_.valid()) << "eventfd";
}

void Cancel::Set() {
  set_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof(one));
}

Result<std::shared_ptr<Cancel>> BlockingCalls::Start(const std::string& purpose,
                                                     std::function<void(const Cancel&)> call) {
  Call& entry = calls_.emplace_back();
  Result<std::thread> thread =
      cachecore::StartThread(purpose, [this, &entry, work = std::move(call)] {
        work(*entry.cancel);
        entry.returned = true;
        wake_();
      });
  if (!thread.ok()) {
    calls_.pop_back();
    return thread.status();
  }
  entry.thread = std::move(thread).value();
  return entry.cancel;
}

void BlockingCalls::Reap() {
  for (auto it = calls_.begin(); it != calls_.end();) {
    if (!it->returned) {
      ++it;
      continue;
    }
    it->thread.join();
    it = calls_.erase(it);
  }
}

void BlockingCalls::Stop() {
  for (Call& call : calls_) call.cancel->Set();
  for (Call& call : calls_) call.thread.join();
  calls_.clear();
}

}  // namespace fetcher
