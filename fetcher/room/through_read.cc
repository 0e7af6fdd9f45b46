#include "fetcher/room/through_read.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/mman.h>

#include <utility>

namespace fetcher {

bool ThroughRead::MayContinue(size_t sent, cachecore::Duration now) const {
  if (now < paused_until_) return false;
  return read_.has_value() || *count_ + sent < kMost;
}

bool ThroughRead::Begin(cachecore::MsgId id, cachecore::ByteRange range) {
  CHECK(!read_);
  cachecore::UniqueFd file(memfd_create("holdfast-through", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) return false;
  read_ = Sealed{id, range, std::move(file)};
  done_ = range.begin;
  ++*count_;
  return true;
}

std::optional<ThroughRead::Sealed> ThroughRead::Seal() {
  constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  Sealed ended = std::move(*read_);
  Reset();
  if (fcntl(ended.file.get(), F_ADD_SEALS, kSeals) != 0) return std::nullopt;
  return ended;
}

void ThroughRead::Reset() {
  if (!read_) return;
  read_.reset();
  --*count_;
}

}  // namespace fetcher
