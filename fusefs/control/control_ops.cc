#include "fusefs/control/control_ops.h"

#include <glog/logging.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <future>
#include <memory>
#include <optional>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/unix_listener.h"
#include "fusefs/control/trace_ops.h"

namespace fusefs {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::ObjectInfo;
using cachecore::ObjectNumber;
using cachecore::PidStamp;
using cachecore::Result;
using cachecore::UniqueFd;
using control::Operation;
using control::Request;
using nlohmann::json;

namespace {

// A list longer than this serves no reader of `holdfast status`; the counts are exact.
constexpr size_t kMaxListed = 1000;
// Of one `verify`: a short answer lets the caller show how far it is.
constexpr uint64_t kMaxWindow = 256 << 20;
constexpr std::chrono::hours kMaxPatience{1};
constexpr uint64_t kMaxLoanMs = 24 * 3600 * 1000;

int64_t Milliseconds(cachecore::Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

// "" for an object without a digest.
std::string TextOf(const std::optional<cachecore::Digest>& digest) {
  return digest ? cachecore::DigestText(*digest) : "";
}

GrantName NameIn(const Request& request) { return {request.volume, request.object}; }

const char* OpcodeName(cachecore::wire::Opcode opcode) {
  if (opcode == cachecore::wire::Opcode::kOpen) return control::kOpenRequest;
  return opcode == cachecore::wire::Opcode::kRead ? control::kReadRequest : control::kCloseRequest;
}

json RequestsJson(const std::vector<cachecore::RequestInfo>& requests) {
  json list = json::array();
  size_t waiting = 0;
  int64_t oldest_ms = 0;
  for (const cachecore::RequestInfo& request : requests) {
    const bool open = request.opcode == cachecore::wire::Opcode::kOpen;
    if (request.waiters > 0 || open) {
      ++waiting;
      oldest_ms = std::max(oldest_ms, Milliseconds(request.age));
    }
    if (list.size() >= kMaxListed) continue;
    list.push_back({{field::kId, request.id.value},
                    {field::kOp, OpcodeName(request.opcode)},
                    {field::kObject, request.object.value},
                    {field::kOffset, request.range.begin},
                    {field::kLength, request.range.size()},
                    {field::kAgeMs, Milliseconds(request.age)},
                    {field::kWaiters, request.waiters},
                    {field::kPublished, request.published},
                    {field::kDelivered, request.delivered},
                    {field::kCause, request.cause}});
  }
  return {{field::kWaiting, waiting},
          {field::kTotal, requests.size()},
          {field::kOldestMs, oldest_ms},
          {field::kList, std::move(list)}};
}

// The process at the other end of a connection; none where it is not known.
PidStamp ProcessOf(int connection) {
  if (connection < 0) return {};
  const Result<ucred> peer = cachecore::PeerOf(connection);
  if (!peer.ok() || peer->pid <= 0) return {};
  const std::optional<uint64_t> started = cachecore::ProcessStart(peer->pid);
  return started ? PidStamp{peer->pid, *started} : PidStamp();
}

// An acquisition's end, for the thread that waits for it.
class Answered {
 public:
  void Set(const Result<ObjectInfo>& info) {
    answer_.set_value(info);
    const uint64_t one = 1;
    if (is_set_.valid()) PCHECK(write(is_set_.get(), &one, sizeof(one)) == sizeof(one));
  }
  // Waits for the end; true when the peer has closed `connection` before it.
  bool IsLeft(int connection) {
    pollfd fds[2] = {{is_set_.get(), POLLIN, 0}, {connection, 0, 0}};
    if (!is_set_.valid()) return false;
    while (poll(fds, 2, -1) < 0) PCHECK(errno == EINTR);
    return fds[0].revents == 0;
  }
  Result<ObjectInfo> Get() { return answer_.get_future().get(); }

 private:
  const UniqueFd is_set_{eventfd(0, EFD_CLOEXEC)};
  std::promise<Result<ObjectInfo>> answer_;
};

}  // namespace

ControlOps::ControlOps(Parts parts)
    : parts_(std::move(parts)),
      cache_ops_(parts_.cache, parts_.grants, parts_.describe_limits, parts_.mounted == nullptr),
      started_unix_(static_cast<int64_t>(time(nullptr))) {}

std::string ControlOps::Handle(const std::string& line, int peer) {
  const Result<Request> request = control::DecodeRequest(line);
  const Caller caller = {peer, ProcessOf(peer)};
  return cachecore::RecordText(request.ok() ? Answer(*request, caller)
                                            : control::EncodeRefusal(request.status()));
}

json ControlOps::Answer(const Request& request, const Caller& caller) {
  switch (request.operation) {
    case Operation::kPing:
      return control::EncodePing({getpid(), HOLDFAST_VERSION});
    case Operation::kStatus:
      return Status(request);
    case Operation::kAcquire:
      return Acquire(request, caller);
    case Operation::kKeep:
      return Keep(request);
    case Operation::kMounted:
      return Mounted(request, caller);
    case Operation::kRelease:
      return Release(request, caller);
    case Operation::kShut:
      return Shut(request);
    case Operation::kVerify:
      return Verify(request);
    case Operation::kLimit:
      return cache_ops_.Limit(request);
    case Operation::kPin:
    case Operation::kUnpin:
      return cache_ops_.SetPinned(request, request.operation == Operation::kPin);
    case Operation::kList:
      return cache_ops_.List();
    case Operation::kRemove:
      return cache_ops_.Remove(request);
    case Operation::kTrace:
      return TraceReads(parts_.cache, request);
    case Operation::kHistory:
      return TellHistory(parts_.cache, request, started_unix_);
    case Operation::kStop:
      parts_.stop();
      return control::EncodeDone();
  }
  return control::EncodeRefusal(cachecore::Status(EOPNOTSUPP, "unknown op"));
}

json ControlOps::Status(const Request& request) {
  const GrantName only = NameIn(request);
  json objects = json::array();
  const std::vector<ObjectInfo> infos = parts_.cache->DescribeObjects();
  for (const ObjectInfo& info : infos) {
    if (objects.size() >= kMaxListed) break;
    if (!only.object.empty() &&
        (info.volume_key != only.volume || info.cookie_key != only.object)) {
      continue;
    }
    objects.push_back(
        {{field::kNumber, info.number.value},
         {field::kVolume, info.volume_key},
         {field::kName, info.cookie_key},
         {field::kSize, info.size_bytes},
         {field::kPresent, info.present_bytes},
         {field::kState, cachecore::Name(info.state)},
         {field::kStale, info.stale},
         {field::kFull, info.full},
         {field::kVerified, info.verity.has_value()},
         {field::kDigest, TextOf(info.verity)},
         {field::kPinned, parts_.cache->choices().IsPinned(info.volume_key, info.cookie_key)},
         {field::kError, info.last_error}});
  }
  json fetcher = {{field::kAttached, false}};
  if (const std::optional<FetcherInfo> attached = parts_.device->fetcher()) {
    fetcher = {{field::kAttached, true},
               {field::kSince, attached->since_unix},
               {field::kPid, attached->pid}};
  }
  const json cachefiles =
      parts_.describe_cachefiles ? parts_.describe_cachefiles() : json::object();
  const cachecore::SyncCounters syncs = parts_.cache->sync_counters();
  json counts = {{"reads", parts_.fuse->reads()},
                 {"bytes_synced", syncs.bytes},
                 {"log_lines_left_out", parts_.cache->log().left_out()},
                 {"sync_ms_max", Milliseconds(syncs.longest)}};
  parts_.cache->counters().ForEach(
      [&counts](const char* name, uint64_t value) { counts[name] = value; });
  return {{field::kOk, true},
          {field::kVersion, HOLDFAST_VERSION},
          {field::kPid, getpid()},
          {field::kStarted, started_unix_},
          {field::kDetachPolicy, parts_.fail_on_detach ? "fail" : "hold"},
          {field::kGeneration, parts_.cache->generation().value},
          {field::kFetcher, std::move(fetcher)},
          {field::kCachefiles, cachefiles},
          {field::kObjectCount, infos.size()},
          {field::kObjects, std::move(objects)},
          {field::kCache, parts_.describe_limits()},
          {field::kStoreTrouble, parts_.cache->store_trouble()},
          {field::kRequests, RequestsJson(parts_.cache->DescribeRequests())},
          {field::kCounters, std::move(counts)},
          {field::kTotals, parts_.totals == nullptr ? json::object() : json(parts_.totals->All())}};
}

Result<ObjectInfo> ControlOps::AcquireObject(const Request& request, const Caller& caller) {
  // A mount says whether others use the object; a request that does not say is of no mount.
  auto freshness = cachecore::Freshness::kKnown;
  if (request.replace_stale) {
    freshness =
        *request.replace_stale ? cachecore::Freshness::kReplace : cachecore::Freshness::kAsk;
  }
  ASSIGN_OR_RETURN(const ObjectNumber volume, parts_.cache->AddVolume(request.volume));

  const auto answered = std::make_shared<Answered>();
  const std::optional<cachecore::AcquireTicket> ticket = parts_.cache->Acquire(
      {volume, request.volume}, request.object,
      std::chrono::milliseconds(std::max<int64_t>(request.timeout_ms, 1)), freshness,
      [answered](const Result<ObjectInfo>& info) { answered->Set(info); });
  const std::stop_callback let_go(stop_.get_token(), [&] {
    if (!ticket) return;
    (void)parts_.cache->Withdraw(*ticket,
                                 cachecore::Status(ECANCELED, "the daemon is stopping; try again"));
  });
  // A mount that was killed waits for nothing any more.
  if (ticket && request.lend_ms && answered->IsLeft(caller.connection)) {
    (void)parts_.cache->Withdraw(
        *ticket, cachecore::Status(ECANCELED, "the mount that has asked for it has ended"));
  }
  return answered->Get();
}

cachecore::Status ControlOps::ClaimForMount(const Request& request, const Caller& caller) {
  if (request.mount.empty()) return cachecore::Status();
  if (parts_.mounted == nullptr) {
    return cachecore::Status(EOPNOTSUPP, "this holdfastd has no cachefiles device");
  }
  const GrantName name = NameIn(request);
  if (request.mount == control::kPrimary && parts_.mounted->Has(name)) {
    const std::string place = parts_.mounted->PlaceOf(name);
    return cachecore::Status(
        EBUSY, name.volume + "/" + name.object + " is mounted already" +
                   (place.empty() ? ", in another mount namespace; unmount it there first"
                                  : ", on " + place + "; unmount it first: umount " + place));
  }
  // For the time of the acquisition and of the mount after it.
  const uint64_t time_ms =
      static_cast<uint64_t>(std::max<int64_t>(request.timeout_ms, 1)) + request.lend_ms.value_or(0);
  parts_.mounted->Claim(name, std::chrono::milliseconds(std::min(time_ms, kMaxLoanMs)),
                        caller.process);
  return cachecore::Status();
}

json ControlOps::Mounted(const Request& request, const Caller& caller) {
  std::vector<GrantName> names = {NameIn(request)};
  for (const std::string& object : request.shared) names.push_back({request.volume, object});
  if (parts_.mounted == nullptr || request.superblock.empty()) {
    return control::EncodeRefusal(cachecore::Status(
        EINVAL, "`mounted` is for mounts by fsid, and names their file system's number"));
  }
  for (const GrantName& name : names) {
    const Result<uint64_t> grant = parts_.grants->Keep(name);
    if (!grant.ok()) return control::EncodeRefusal(grant.status());
  }
  const cachecore::Status added = parts_.mounted->Add(request.superblock, names, caller.process);
  return added.ok() ? control::EncodeDone() : control::EncodeRefusal(added);
}

json ControlOps::Acquire(const Request& request, const Caller& caller) {
  const cachecore::Status admitted =
      parts_.admit ? parts_.admit(NameIn(request)) : cachecore::Status();
  if (!admitted.ok()) return control::EncodeRefusal(admitted);
  json answer = AcquireAdmitted(request, caller);
  if (parts_.admitted) parts_.admitted(NameIn(request));
  return answer;
}

json ControlOps::AcquireAdmitted(const Request& request, const Caller& caller) {
  const cachecore::Status claimed = ClaimForMount(request, caller);
  if (!claimed.ok()) return control::EncodeRefusal(claimed);
  const Result<ObjectInfo> info = AcquireObject(request, caller);
  if (!info.ok()) {
    if (!request.mount.empty()) parts_.mounted->Release(NameIn(request), caller.process);
    return control::EncodeRefusal(info.status());
  }
  parts_.cache->SetRefusesReads(info->number, false);
  const GrantName name{info->volume_key, info->cookie_key};
  const Result<uint64_t> grant =
      request.lend_ms ? parts_.grants->Lend(
                            name, std::chrono::milliseconds(std::min(*request.lend_ms, kMaxLoanMs)))
                      : parts_.grants->Keep(name);
  if (!grant.ok()) return control::EncodeRefusal(grant.status());
  return control::EncodeAcquire(
      {.number = info->number.value,
       .size_bytes = info->size_bytes,
       .present_bytes = info->present_bytes,
       .stale = info->stale,
       .digest = TextOf(info->verity),
       .path = parts_.fuse_dir + "/" + info->volume_key + "/" + info->cookie_key,
       .directory = parts_.fuse_dir + "/=" + std::to_string(*grant)});
}

json ControlOps::Keep(const Request& request) {
  const GrantName name = NameIn(request);
  if (!parts_.grants->Has(name)) {
    return control::EncodeRefusal(cachecore::Status(
        ENOENT, name.volume + "/" + name.object + " was not acquired, or its time is up"));
  }
  const Result<uint64_t> grant = parts_.grants->Keep(name);
  if (!grant.ok()) return control::EncodeRefusal(grant.status());
  return control::EncodeDone();
}

json ControlOps::Release(const Request& request, const Caller& caller) {
  if (parts_.mounted != nullptr) {
    parts_.mounted->Release(NameIn(request), caller.process);
  } else {
    parts_.grants->Release(NameIn(request));
  }
  return control::EncodeDone();
}

json ControlOps::Verify(const Request& request) {
  // What is known is enough; no fetcher is asked for an object that is not.
  const ObjectNumber object{request.number};
  const cachecore::ByteRange window =
      cachecore::ByteRange::At(request.offset, std::min(request.length, kMaxWindow));
  const auto patience = std::min<std::chrono::milliseconds>(
      std::chrono::milliseconds(request.timeout_ms), kMaxPatience);
  if (window.end < window.begin) {
    return control::EncodeRefusal(cachecore::Status(EINVAL, "the window ends past the last byte"));
  }
  const Result<cachecore::RecheckResult> found =
      parts_.cache->Recheck(object, window, patience, stop_.get_token());
  if (!found.ok()) return control::EncodeRefusal(found.status());
  return control::EncodeVerify({.checked_bytes = found->checked_bytes,
                                .wrong_bytes = found->wrong_bytes,
                                .healed_bytes = found->healed_bytes,
                                .next = found->next,
                                .why = found->error});
}

json ControlOps::Shut(const Request& request) {
  const Result<ObjectInfo> info = AcquireObject(request, {});
  if (!info.ok()) return control::EncodeRefusal(info.status());
  parts_.cache->SetRefusesReads(info->number, true);
  json answer = control::EncodeDone();
  answer[field::kNumber] = info->number.value;
  return answer;
}

}  // namespace fusefs
