#include "fusefs/server/fuse_ops.h"

#include <glog/logging.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/fault_point.h"
#include "fusefs/server/fuse_connection.h"
#include "fusefs/server/reader_names.h"
#include "fusefs/server/thread_slot.h"

namespace fusefs {

using cachecore::ByteRange;
using cachecore::ObjectInfo;
using cachecore::ObjectNumber;
using cachecore::Result;
using cachecore::Status;
using cachecore::VolumeRecord;

namespace {

// An object never changes under its number, so what the kernel knows of one stays true.
constexpr double kForever = 1e9;
// A name may come to mean another object, after the first was dropped and is refetched.  A daemon
// that dies after it dropped one cannot tell the kernel, so the kernel asks each time.
constexpr double kNameSeconds = 0;

// A directory with one object in it, "=ID" in the root: what a file mount shows.  ID is the grant's.
constexpr uint64_t kSingleBit = uint64_t{1} << 62;
constexpr char kSinglePrefix = '=';

// In a listing, for an object that would have to be searched for.
constexpr ObjectNumber kUnknownNumber{0xffffffff};

bool IsSingle(fuse_ino_t node) { return (node & kSingleBit) != 0; }

// The node of "=ID"; 0 for another name.
uint64_t SingleNode(std::string_view name) {
  if (name.size() < 2 || name[0] != kSinglePrefix || name[1] == '0') return 0;
  uint64_t id = 0;
  const auto [stopped, error] = std::from_chars(name.data() + 1, name.data() + name.size(), id);
  const bool is_id = error == std::errc() && stopped == name.data() + name.size();
  return is_id && id < kSingleBit ? id | kSingleBit : 0;
}

struct stat DirectoryAttr(ObjectNumber number) {
  struct stat attr = {};
  attr.st_ino = number.value;
  // The root is root's: what others may see are mounts, and they bind what lies below it.
  attr.st_mode = S_IFDIR | (number.value == FUSE_ROOT_ID ? 0700 : 0555);
  attr.st_nlink = 2;
  return attr;
}

struct stat FileAttr(ObjectNumber number, uint64_t size_bytes,
                     const std::optional<cachecore::ObjectFacts>& facts) {
  struct stat attr = {};
  attr.st_ino = number.value;
  attr.st_mode = S_IFREG | 0444;
  attr.st_nlink = 1;
  attr.st_size = static_cast<off_t>(size_bytes);
  attr.st_blocks = static_cast<blkcnt_t>((size_bytes + 511) / 512);
  attr.st_blksize = cachecore::kBlockSize;
  if (facts) {
    attr.st_mtim.tv_sec = static_cast<time_t>(facts->modified_s);
    attr.st_mtim.tv_nsec = facts->modified_ns;
    attr.st_ctim = attr.st_mtim;
  }
  return attr;
}

void ReplyEntry(fuse_req_t req, const struct stat& attr) {
  fuse_entry_param entry = {};
  entry.ino = attr.st_ino;
  entry.attr = attr;
  entry.attr_timeout = kForever;
  entry.entry_timeout = kNameSeconds;
  fuse_reply_entry(req, &entry);
}

// What a reader is told: the errno where it is one a reader knows, EIO for all else.
int ReaderError(const Status& status) {
  return status.error() == EINTR || status.error() == ESTALE ? status.error() : EIO;
}

// Answers a read with bytes of a data file, by splice where the kernel can; with EIO if the file
// does not give all of them: false then.
bool ReplySlice(const FuseRequest& request, const cachecore::FileSlice& slice) {
  fuse_bufvec buffer = FUSE_BUFVEC_INIT(slice.range.size());
  if (slice.range.empty()) {
    fuse_reply_buf(request.req, nullptr, 0);
    return true;
  }
  buffer.buf[0].flags =
      static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY);
  buffer.buf[0].fd = slice.file->get();
  buffer.buf[0].pos = static_cast<off_t>(slice.range.begin);
  ExpectedReply expected{request.unique, slice.range.size()};
  const ThreadSlot<ExpectedReply> slot(&expected);
  fuse_reply_data(request.req, &buffer, static_cast<fuse_buf_copy_flags>(0));
  return !expected.refused;
}

}  // namespace

FuseOps::FuseOps(uint32_t max_read, int check_threads, cachecore::Totals* totals,
                 cachecore::Cache* cache, const Grants* grants)
    : max_read_(max_read),
      cache_(cache),
      grants_(grants),
      interrupts_(cache),
      checkers_(check_threads),
      totals_(totals) {}

void FuseOps::Stop() {
  checkers_.Stop();
  interrupts_.Stop();
}

void FuseOps::Init(fuse_conn_info* conn) const {
  conn->want |=
      conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_SPLICE_WRITE);
  // AUTO_INVAL_DATA: nothing is kept that a change of attributes could make stale.  READDIRPLUS:
  // it would open every object of a volume.  ASYNC_DIO: the kernel cannot be interrupted in an
  // O_DIRECT read that it has split up, and a killed reader would stay until the bytes came.
  conn->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
                                       FUSE_CAP_SPLICE_READ | FUSE_CAP_ASYNC_DIO);
  conn->max_write = max_read_;  // Also bounds reads: libfuse derives max_pages.
  conn->max_readahead = std::numeric_limits<unsigned>::max();
  // With the default of 12, a dozen waiting read-aheads would stop reads of present data.
  conn->max_background = 65535;
  conn->congestion_threshold = 65535;
}

void FuseOps::Lookup(const FuseRequest& request, fuse_ino_t parent, const char* name) {
  if (parent == FUSE_ROOT_ID) {
    LookupInRoot(request, name);
    return;
  }
  std::string volume_key;
  if (IsSingle(parent)) {
    const std::optional<GrantName> granted = grants_->Find(parent & ~kSingleBit);
    if (granted && granted->object == name) volume_key = granted->volume;
  } else if (const auto volume = cache_->LoadVolume(ObjectNumber{parent});
             volume.ok() && volume->has_value()) {
    volume_key = (*volume)->key;
  }
  // First of all: what was not acquired is not there, for any process.
  if (volume_key.empty() || !grants_->Has({volume_key, name})) {
    fuse_reply_err(request.req, ENOENT);
    return;
  }
  LookupGranted(request, volume_key, name);
}

void FuseOps::LookupInRoot(const FuseRequest& request, const char* name) {
  if (const uint64_t node = SingleNode(name); node != 0) {
    const bool is_there = grants_->Find(node & ~kSingleBit).has_value();
    if (is_there) {
      ReplyEntry(request.req, DirectoryAttr(ObjectNumber{node}));
    } else {
      fuse_reply_err(request.req, ENOENT);
    }
    return;
  }
  if (!grants_->HasVolume(name)) {
    fuse_reply_err(request.req, ENOENT);
    return;
  }
  const Result<std::optional<VolumeRecord>> volume = cache_->FindVolume(name);
  if (volume.ok() && volume->has_value()) {
    ReplyEntry(request.req, DirectoryAttr((*volume)->number));
  } else {
    fuse_reply_err(request.req, volume.ok() ? ENOENT : EIO);
  }
}

void FuseOps::LookupGranted(const FuseRequest& request, const std::string& volume_key,
                            const char* name) {
  const Result<std::optional<VolumeRecord>> volume = cache_->FindVolume(volume_key);
  if (!volume.ok() || !volume->has_value()) {
    fuse_reply_err(request.req, volume.ok() ? ENOENT : EIO);
    return;
  }
  const auto watch = Watch(request);
  const auto ticket = cache_->Acquire(
      **volume, name, {}, cachecore::Freshness::kKnown,
      [this, request, watch](const Result<ObjectInfo>& info) {
        Unwatch(request, watch);
        if (info.ok()) {
          ReplyEntry(request.req, FileAttr(info->number, info->size_bytes, info->facts));
        } else if (info.status().error() == ENOENT) {
          fuse_reply_err(request.req, ENOENT);
        } else {
          cache_->log().Warn("look-up: " + info.status().message());
          fuse_reply_err(request.req, ReaderError(info.status()));
        }
      });
  if (ticket) interrupts_.SetTicket(watch->second, *ticket);
}

void FuseOps::GetAttr(const FuseRequest& request, fuse_ino_t node) {
  const bool is_directory = node == FUSE_ROOT_ID || IsSingle(node) || [&] {
    const auto volume = cache_->LoadVolume(ObjectNumber{node});
    return volume.ok() && volume->has_value();
  }();
  if (is_directory) {
    const struct stat attr = DirectoryAttr(ObjectNumber{node});
    fuse_reply_attr(request.req, &attr, kForever);
    return;
  }
  const Result<ObjectInfo> info = cache_->Stat(ObjectNumber{node});
  if (!info.ok()) {
    fuse_reply_err(request.req, ReaderError(info.status()));
    return;
  }
  const struct stat attr = FileAttr(info->number, info->size_bytes, info->facts);
  fuse_reply_attr(request.req, &attr, kForever);
}

void FuseOps::Open(const FuseRequest& request) {
  fuse_reply_err(request.req, ENOSYS);  // The kernel need not ask: no handle, page cache kept.
}

void FuseOps::Read(const FuseRequest& request, fuse_ino_t node, size_t size, off_t offset) {
  reads_.fetch_add(1, std::memory_order_relaxed);
  totals_.Came();
  const ObjectNumber number{node};
  const ByteRange range = ByteRange::At(static_cast<uint64_t>(offset), size);
  const Result<std::optional<cachecore::FileSlice>> slice = cache_->TryRead(number, range);
  if (!slice.ok()) {
    cache_->NoteFailedRead();
    fuse_reply_err(request.req, ReaderError(slice.status()));
    totals_.Ended(slice.status(), {});
  } else if (slice->has_value() && !(*slice)->verity) {
    ReplyUnchecked({request, number, range}, **slice);
  } else {
    const ReadCall call{request, number, range};
    slice->has_value() ? ReplyChecked(call, **slice) : ReadMissing(call);
  }
}

void FuseOps::ReadDir(const FuseRequest& request, fuse_ino_t node, size_t size, off_t offset) {
  std::vector<char> buffer(size);
  size_t used = 0;
  off_t position = 0;
  const auto add = [&](const char* name, const struct stat& attr) {
    if (++position <= offset) return true;
    const size_t need =
        fuse_add_direntry(request.req, buffer.data() + used, size - used, name, &attr, position);
    if (need > size - used) return false;
    used += need;
    return true;
  };
  bool more = add(".", DirectoryAttr(ObjectNumber{node})) &&
              add("..", DirectoryAttr(ObjectNumber{FUSE_ROOT_ID}));
  const Status status = more ? List(node, add) : Status();
  if (status.ok()) {
    fuse_reply_buf(request.req, buffer.data(), used);
  } else {
    cache_->log().Error("listing node " + std::to_string(node) + ": " + status.message());
    fuse_reply_err(request.req, EIO);
  }
}

Status FuseOps::List(fuse_ino_t directory,
                     const std::function<bool(const char*, const struct stat&)>& add) {
  if (directory == FUSE_ROOT_ID) {
    return cache_->ScanVolumes([&](const VolumeRecord& volume) {
      return !grants_->HasVolume(volume.key) ||
             add(volume.key.c_str(), DirectoryAttr(volume.number));
    });
  }
  if (IsSingle(directory)) {  // Every user may list it, so nothing is searched for it.
    const std::optional<GrantName> single = grants_->Find(directory & ~kSingleBit);
    if (single) add(single->object.c_str(), FileAttr(kUnknownNumber, 0, {}));
    return Status();
  }
  ASSIGN_OR_RETURN(const std::optional<VolumeRecord> volume,
                   cache_->LoadVolume(ObjectNumber{directory}));
  if (!volume) return Status();
  return cache_->ScanObjects(volume->number, [&](const cachecore::ObjectRecord& object) {
    return !grants_->Has({volume->key, object.cookie}) ||
           add(object.cookie.c_str(), FileAttr(object.number, object.size_bytes, object.facts));
  });
}

void FuseOps::StatFs(const FuseRequest& request) {
  struct statvfs stat = {};
  stat.f_bsize = cachecore::kBlockSize;
  stat.f_frsize = cachecore::kBlockSize;
  stat.f_namemax = cachecore::kMaxKeySize;
  fuse_reply_statfs(request.req, &stat);
}

void FuseOps::Interrupted(fuse_req_t, void* watched) {
  const auto& [interrupts, watch] = *static_cast<Watched*>(watched);
  interrupts->Interrupt(watch);
}

// Must come before the request is handed on: the completing thread may reply, and end it, at once.
std::shared_ptr<FuseOps::Watched> FuseOps::Watch(const FuseRequest& request) {
  auto watched =
      std::make_shared<Watched>(&interrupts_, interrupts_.Watch(request.caller, request.resent));
  fuse_req_interrupt_func(request.req, Interrupted, watched.get());
  return watched;
}

void FuseOps::Unwatch(const FuseRequest& request, const std::shared_ptr<Watched>& watched) {
  interrupts_.Unwatch(watched->second);
  fuse_req_interrupt_func(request.req, nullptr, nullptr);
}

void FuseOps::ReadMissing(ReadCall call) {
  if (call.waits_since == cachecore::Duration::zero()) {
    call.waits_since = cachecore::Clock::Monotonic().Now();
  }
  const auto watched = Watch(call.request);
  const auto done = [this, call, watched](const Status& status, const cachecore::FileSlice& slice) {
    Unwatch(call.request, watched);
    if (!status.ok()) {
      fuse_reply_err(call.request.req, ReaderError(status));
      totals_.Ended(status, call.waits_since);
    } else if (!slice.through.empty()) {
      checkers_.Post([this, call, slice] { ReplyAssembled(call, slice); });
    } else if (slice.verity) {
      // On the thread that completed it the other reads that it completed would wait.
      checkers_.Post([this, call, slice] {
        cachecore::FaultPoint(cachecore::Fault::kBeforeCheck);
        ReplyChecked(call, slice);
      });
    } else {
      ReplyUnchecked(call, slice);
    }
  };
  cachecore::Reader reader = ReaderOf(call.request.caller);
  if (call.tries > 0) reader.again = "bytes of it in the cache were wrong, and are fetched again";
  cachecore::ReadTicket ticket = cache_->Read(call.number, call.range, done, std::move(reader));
  if (ticket != nullptr) interrupts_.SetTicket(watched->second, std::move(ticket));
}

void FuseOps::ReplyUnchecked(const ReadCall& call, const cachecore::FileSlice& slice) {
  const bool is_whole = ReplySlice(call.request, slice);
  if (!is_whole) cache_->NoteUnreadable(call.number, slice);
  totals_.Ended(is_whole ? Status() : Status(EIO, "its disk has lost bytes of it"),
                call.waits_since);
}

void FuseOps::ReplyChecked(const ReadCall& call, const cachecore::FileSlice& slice) {
  // Whole blocks; a request may begin and end inside one.
  static thread_local std::vector<uint8_t> buffer;
  const uint64_t skip = slice.range.begin % cachecore::kVerityBlock;
  buffer.resize(
      std::max<size_t>(buffer.size(), skip + slice.range.size() + cachecore::kVerityBlock));
  const Status checked = slice.range.empty() ? Status() : cache_->ReadChecked(slice, buffer);
  if (checked.ok()) {
    const auto* bytes = reinterpret_cast<const char*>(buffer.data());
    fuse_reply_buf(call.request.req, bytes + skip, slice.range.size());
    totals_.Ended(Status(), call.waits_since);
  } else {
    ReplyFailed(call, slice, checked);
  }
}

void FuseOps::ReplyAssembled(const ReadCall& call, const cachecore::FileSlice& slice) {
  std::vector<uint8_t> buffer(slice.range.size());
  const Status read = cache_->ReadAssembled(slice, buffer);
  if (read.ok()) {
    fuse_reply_buf(call.request.req, reinterpret_cast<const char*>(buffer.data()), buffer.size());
    totals_.Ended(Status(), call.waits_since);
  } else {
    ReplyFailed(call, slice, read);
  }
}

void FuseOps::ReplyFailed(const ReadCall& call, const cachecore::FileSlice& slice,
                          const Status& why) {
  if (why.error() == EAGAIN && call.tries < kMaxTries) {
    ReadCall again = call;
    ++again.tries;
    ReadMissing(again);
    return;
  }
  if (why.error() == EAGAIN) {
    cache_->log().Error(why.message() + "; EIO after " + std::to_string(call.tries) +
                        " more tries");
    cache_->NoteFailedRead();
  } else {
    cache_->NoteUnreadable(call.number, slice);
  }
  fuse_reply_err(call.request.req, EIO);
  totals_.Ended(why, call.waits_since);
}

}  // namespace fusefs
