#include "fusefs/fuse_ops.h"

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

#include "fusefs/fuse_server.h"

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
// A name may come to mean another object, one that was dropped and is fetched anew, and nobody
// could tell the kernel if the daemon that dropped it died.  So it asks each time.
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

struct stat FileAttr(ObjectNumber number, uint64_t size_bytes) {
  struct stat attr = {};
  attr.st_ino = number.value;
  attr.st_mode = S_IFREG | 0444;
  attr.st_nlink = 1;
  attr.st_size = static_cast<off_t>(size_bytes);
  attr.st_blocks = static_cast<blkcnt_t>((size_bytes + 511) / 512);
  attr.st_blksize = cachecore::kBlockSize;
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

}  // namespace

bool ReplySlice(fuse_req_t req, uint64_t unique, const cachecore::FileSlice& slice) {
  fuse_bufvec buffer = FUSE_BUFVEC_INIT(slice.range.size());
  if (slice.range.empty()) {
    fuse_reply_buf(req, nullptr, 0);
    return true;
  }
  buffer.buf[0].flags =
      static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY);
  buffer.buf[0].fd = slice.file->get();
  buffer.buf[0].pos = static_cast<off_t>(slice.range.begin);
  FuseConnection::ExpectReply(unique, slice.range.size());
  fuse_reply_data(req, &buffer, static_cast<fuse_buf_copy_flags>(0));
  return FuseConnection::ExpectNothing();
}

struct FuseOps {
  static FuseServer* ServerOf(fuse_req_t req) {
    return static_cast<FuseServer*>(fuse_req_userdata(req));
  }

  static void Init(void* userdata, fuse_conn_info* conn) {
    const auto* server = static_cast<FuseServer*>(userdata);
    conn->want |=
        conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_SPLICE_WRITE);
    // AUTO_INVAL_DATA: nothing is kept that a change of attributes could make stale.  READDIRPLUS:
    // it would open every object of a volume.  ASYNC_DIO: the kernel cannot be interrupted in an
    // O_DIRECT read that it has split up, and a killed reader would stay until the bytes came.
    conn->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
                                         FUSE_CAP_SPLICE_READ | FUSE_CAP_ASYNC_DIO);
    conn->max_write = server->options_.max_read;  // Also bounds reads: libfuse derives max_pages.
    conn->max_readahead = std::numeric_limits<unsigned>::max();
    // With the default of 12, a dozen waiting read-aheads would stop reads of present data.
    conn->max_background = 65535;
    conn->congestion_threshold = 65535;
  }

  static void Lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
    FuseServer* server = ServerOf(req);
    if (parent == FUSE_ROOT_ID) {
      LookupInRoot(server, req, name);
      return;
    }
    std::string volume_key;
    if (IsSingle(parent)) {
      const std::optional<GrantName> granted = server->grants_->Find(parent & ~kSingleBit);
      if (granted && granted->object == name) volume_key = granted->volume;
    } else if (const auto volume = server->cache_->LoadVolume(ObjectNumber{parent});
               volume.ok() && volume->has_value()) {
      volume_key = (*volume)->key;
    }
    // First of all: what was not acquired is not there, for any process.
    if (volume_key.empty() || !server->grants_->Has({volume_key, name})) {
      fuse_reply_err(req, ENOENT);
      return;
    }
    LookupGranted(server, req, volume_key, name);
  }

  static void LookupInRoot(FuseServer* server, fuse_req_t req, const char* name) {
    if (const uint64_t node = SingleNode(name); node != 0) {
      const bool is_there = server->grants_->Find(node & ~kSingleBit).has_value();
      if (is_there) {
        ReplyEntry(req, DirectoryAttr(ObjectNumber{node}));
      } else {
        fuse_reply_err(req, ENOENT);
      }
      return;
    }
    if (!server->grants_->HasVolume(name)) {
      fuse_reply_err(req, ENOENT);
      return;
    }
    const Result<std::optional<VolumeRecord>> volume = server->cache_->FindVolume(name);
    if (volume.ok() && volume->has_value()) {
      ReplyEntry(req, DirectoryAttr((*volume)->number));
    } else {
      fuse_reply_err(req, volume.ok() ? ENOENT : EIO);
    }
  }

  static void LookupGranted(FuseServer* server, fuse_req_t req, const std::string& volume_key,
                            const char* name) {
    const Result<std::optional<VolumeRecord>> volume = server->cache_->FindVolume(volume_key);
    if (!volume.ok() || !volume->has_value()) {
      fuse_reply_err(req, volume.ok() ? ENOENT : EIO);
      return;
    }
    const auto watch =
        server->Watch(req, fuse_req_ctx(req)->pid, FuseConnection::Resent());
    const auto ticket = server->cache_->Acquire(
        **volume, name, {}, false, [req, server, watch](const Result<ObjectInfo>& info) {
          server->Unwatch(req, watch);
          if (info.ok()) {
            ReplyEntry(req, FileAttr(info->number, info->size_bytes));
          } else if (info.status().error() == ENOENT) {
            fuse_reply_err(req, ENOENT);
          } else {
            server->cache_->log().Warn("look-up: " + info.status().message());
            fuse_reply_err(req, ReaderError(info.status()));
          }
        });
    if (ticket) server->interrupts_.SetTicket(watch->second, *ticket);
  }

  static void GetAttr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
    FuseServer* server = ServerOf(req);
    const bool is_directory = ino == FUSE_ROOT_ID || IsSingle(ino) || [&] {
      const auto volume = server->cache_->LoadVolume(ObjectNumber{ino});
      return volume.ok() && volume->has_value();
    }();
    if (is_directory) {
      const struct stat attr = DirectoryAttr(ObjectNumber{ino});
      fuse_reply_attr(req, &attr, kForever);
      return;
    }
    const Result<ObjectInfo> info = server->cache_->Stat(ObjectNumber{ino});
    if (!info.ok()) {
      fuse_reply_err(req, ReaderError(info.status()));
      return;
    }
    const struct stat attr = FileAttr(info->number, info->size_bytes);
    fuse_reply_attr(req, &attr, kForever);
  }

  static void Open(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
    fuse_reply_err(req, ENOSYS);  // The kernel need not ask: no handle, page cache kept.
  }

  static void Read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
    FuseServer* server = ServerOf(req);
    server->reads_.fetch_add(1, std::memory_order_relaxed);
    const ObjectNumber number{ino};
    const ByteRange range = ByteRange::At(static_cast<uint64_t>(offset), size);
    const Result<std::optional<cachecore::FileSlice>> slice =
        server->cache_->TryRead(number, range);
    if (!slice.ok()) {
      server->cache_->NoteFailedRead();
      fuse_reply_err(req, ReaderError(slice.status()));
    } else if (slice->has_value() && !(*slice)->verity) {
      server->ReplyUnchecked(req, FuseServer::current_unique_, number, **slice);
    } else {
      const FuseServer::ReadCall call{req, FuseServer::current_unique_, number, range,
                                      fuse_req_ctx(req)->pid, FuseConnection::Resent()};
      slice->has_value() ? server->ReplyChecked(call, **slice) : server->ReadMissing(call);
    }
  }

  static void ReadDir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
    FuseServer* server = ServerOf(req);
    std::vector<char> buffer(size);
    size_t used = 0;
    off_t position = 0;
    const auto add = [&](const char* name, const struct stat& attr) {
      if (++position <= offset) return true;
      const size_t need =
          fuse_add_direntry(req, buffer.data() + used, size - used, name, &attr, position);
      if (need > size - used) return false;
      used += need;
      return true;
    };
    bool more = add(".", DirectoryAttr(ObjectNumber{ino})) &&
                add("..", DirectoryAttr(ObjectNumber{FUSE_ROOT_ID}));
    const Status status = more ? List(server, ino, add) : Status();
    if (status.ok()) {
      fuse_reply_buf(req, buffer.data(), used);
    } else {
      server->cache_->log().Error("listing node " + std::to_string(ino) + ": " +
                                  status.message());
      fuse_reply_err(req, EIO);
    }
  }

  // Gives `add` what a look-up in the directory would find, until it has enough.
  static Status List(FuseServer* server, fuse_ino_t directory,
                     const std::function<bool(const char*, const struct stat&)>& add) {
    if (directory == FUSE_ROOT_ID) {
      return server->cache_->ScanVolumes([&](const VolumeRecord& volume) {
        return !server->grants_->HasVolume(volume.key) ||
               add(volume.key.c_str(), DirectoryAttr(volume.number));
      });
    }
    if (IsSingle(directory)) {  // Anybody may list it, so nothing is searched for it.
      const std::optional<GrantName> single = server->grants_->Find(directory & ~kSingleBit);
      if (single) add(single->object.c_str(), FileAttr(kUnknownNumber, 0));
      return Status();
    }
    ASSIGN_OR_RETURN(const std::optional<VolumeRecord> volume,
                     server->cache_->LoadVolume(ObjectNumber{directory}));
    if (!volume) return Status();
    return server->cache_->ScanObjects(
        volume->number, [&](const cachecore::ObjectRecord& object) {
          return !server->grants_->Has({volume->key, object.cookie}) ||
                 add(object.cookie.c_str(), FileAttr(object.number, object.size_bytes));
        });
  }

  static void StatFs(fuse_req_t req, fuse_ino_t) {
    struct statvfs stat = {};
    stat.f_bsize = cachecore::kBlockSize;
    stat.f_frsize = cachecore::kBlockSize;
    stat.f_namemax = cachecore::wire::kMaxKeySize;
    fuse_reply_statfs(req, &stat);
  }

  static void Interrupted(fuse_req_t, void* data) {
    auto* watched = static_cast<FuseServer::Watched*>(data);
    watched->first->Interrupt(watched->second);
  }
};

// Must come before the request is handed on: whoever completes it may reply, and end it, at once.
std::shared_ptr<FuseServer::Watched> FuseServer::Watch(fuse_req_t req, pid_t caller, bool resent) {
  auto watched = std::make_shared<Watched>(&interrupts_, interrupts_.Watch(caller, resent));
  fuse_req_interrupt_func(req, FuseOps::Interrupted, watched.get());
  return watched;
}

void FuseServer::Unwatch(fuse_req_t req, const std::shared_ptr<Watched>& watched) {
  interrupts_.Unwatch(watched->second);
  fuse_req_interrupt_func(req, nullptr, nullptr);
}

void FuseServer::ReadMissing(const ReadCall& call) {
  const auto watched = Watch(call.req, call.caller, call.resent);
  const auto done = [this, call, watched](const Status& status,
                                          const cachecore::FileSlice& slice) {
    Unwatch(call.req, watched);
    if (!status.ok()) {
      fuse_reply_err(call.req, ReaderError(status));
    } else if (slice.verity) {
      // On the thread that completed it the other reads that it completed would wait.
      checkers_.Post([this, call, slice] { ReplyChecked(call, slice); });
    } else {
      ReplyUnchecked(call.req, call.unique, call.number, slice);
    }
  };
  cachecore::ReadTicket ticket = cache_->Read(call.number, call.range, done, call.caller);
  if (ticket != nullptr) interrupts_.SetTicket(watched->second, std::move(ticket));
}

void FuseServer::ReplyUnchecked(fuse_req_t req, uint64_t unique, ObjectNumber number,
                                const cachecore::FileSlice& slice) {
  if (!ReplySlice(req, unique, slice)) cache_->NoteUnreadable(number, slice);
}

void FuseServer::ReplyChecked(const ReadCall& call, const cachecore::FileSlice& slice) {
  // Whole blocks; a request may begin and end inside one.
  static thread_local std::vector<uint8_t> buffer;
  const uint64_t skip = slice.range.begin % cachecore::kVerityBlock;
  buffer.resize(
      std::max<size_t>(buffer.size(), skip + slice.range.size() + cachecore::kVerityBlock));
  const Status checked = slice.range.empty() ? Status() : cache_->ReadChecked(slice, buffer);
  if (checked.ok()) {
    const auto* bytes = reinterpret_cast<const char*>(buffer.data());
    fuse_reply_buf(call.req, bytes + skip, slice.range.size());
  } else if (checked.error() == EAGAIN && call.tries < kMaxTries) {
    ReadCall again = call;
    ++again.tries;
    ReadMissing(again);
  } else {
    cache_->log().Error(checked.message() + "; EIO after " + std::to_string(call.tries) +
                        " more tries");
    cache_->NoteFailedRead();
    fuse_reply_err(call.req, EIO);
  }
}

const fuse_lowlevel_ops& FuseOperations() {
  static const fuse_lowlevel_ops ops = [] {
    fuse_lowlevel_ops table = {};
    table.init = FuseOps::Init;
    table.lookup = FuseOps::Lookup;
    table.getattr = FuseOps::GetAttr;
    table.open = FuseOps::Open;
    table.read = FuseOps::Read;
    table.readdir = FuseOps::ReadDir;
    table.statfs = FuseOps::StatFs;
    return table;
  }();
  return ops;
}

}  // namespace fusefs
