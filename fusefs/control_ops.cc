#include "fusefs/control_ops.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <future>
#include <memory>
#include <optional>

namespace fusefs {

using cachecore::ObjectInfo;
using cachecore::ObjectNumber;
using cachecore::Result;
using nlohmann::json;

namespace {

// A list longer than this serves no reader of `holdfast status`; the counts are exact.
constexpr size_t kMaxListed = 1000;
// Of one `verify`: a short answer lets the caller show how far it is.
constexpr uint64_t kMaxWindow = 256 << 20;
constexpr std::chrono::hours kMaxPatience{1};
constexpr uint64_t kMaxLoanMs = 24 * 3600 * 1000;

json Failure(int error, const std::string& sentence) {
  return {{"ok", false}, {"errno", error}, {"error", sentence}};
}

int64_t Milliseconds(cachecore::Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

// "" for an object without a digest.
std::string TextOf(const std::optional<cachecore::Digest>& digest) {
  return digest ? cachecore::DigestText(*digest) : "";
}

GrantName NameIn(const json& request) {
  const auto text = [&](const char* field) -> std::string {
    return request.contains(field) && request[field].is_string() ? request[field] : "";
  };
  return {text("volume"), text("object")};
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
    list.push_back({{"id", request.id.value},
                    {"op", open                                               ? "OPEN"
                           : request.opcode == cachecore::wire::Opcode::kRead ? "READ"
                                                                              : "CLOSE"},
                    {"object", request.object.value},
                    {"offset", request.range.begin},
                    {"length", request.range.size()},
                    {"age_ms", Milliseconds(request.age)},
                    {"waiters", request.waiters},
                    {"delivered", request.delivered},
                    {"cause", request.cause}});
  }
  return {{"waiting", waiting},
          {"total", requests.size()},
          {"oldest_ms", oldest_ms},
          {"list", std::move(list)}};
}

}  // namespace

ControlOps::ControlOps(Parts parts)
    : parts_(std::move(parts)), started_unix_(static_cast<int64_t>(time(nullptr))) {}

std::string ControlOps::Handle(const std::string& line) {
  const json request = json::parse(line, nullptr, /*allow_exceptions=*/false);
  json answer;
  if (!request.is_object() || !request.contains("op") || !request["op"].is_string()) {
    answer = Failure(EINVAL, "a request is one line of JSON, an object with \"op\"");
  } else if (request["op"] == "ping") {
    answer = {{"ok", true}, {"pid", getpid()}, {"version", HOLDFAST_VERSION}};
  } else if (request["op"] == "status") {
    answer = Status(request);
  } else if (request["op"] == "acquire") {
    answer = Acquire(request);
  } else if (request["op"] == "keep") {
    answer = Keep(request);
  } else if (request["op"] == "release") {
    answer = Release(request);
  } else if (request["op"] == "shut") {
    answer = Shut(request);
  } else if (request["op"] == "verify") {
    answer = Verify(request);
  } else if (request["op"] == "stop") {
    parts_.stop();
    answer = {{"ok", true}};
  } else {
    answer = Failure(EOPNOTSUPP, "unknown op; there are ping, status, acquire, keep, release, shut, verify, stop");
  }
  // Names and causes may hold any bytes; JSON may not.
  return answer.dump(-1, ' ', false, json::error_handler_t::replace);
}

json ControlOps::Status(const json& request) {
  const GrantName only = NameIn(request);
  json objects = json::array();
  const std::vector<ObjectInfo> infos = parts_.cache->DescribeObjects();
  for (const ObjectInfo& info : infos) {
    if (objects.size() >= kMaxListed) break;
    if (!only.object.empty() &&
        (info.volume_key != only.volume || info.cookie_key != only.object)) {
      continue;
    }
    objects.push_back({{"number", info.number.value},
                       {"volume", info.volume_key},
                       {"name", info.cookie_key},
                       {"size", info.size_bytes},
                       {"present", info.present_bytes},
                       {"state", cachecore::Name(info.state)},
                       {"stale", info.stale},
                       {"verified", info.verity.has_value()},
                       {"digest", TextOf(info.verity)},
                       {"error", info.last_error}});
  }
  json fetcher = {{"attached", false}};
  if (const std::optional<FetcherInfo> attached = parts_.device->fetcher()) {
    fetcher = {{"attached", true}, {"since", attached->since_unix}, {"pid", attached->pid}};
  }
  const cachecore::EngineCounters counters = parts_.cache->counters();
  const cachecore::SyncCounters syncs = parts_.cache->sync_counters();
  return {{"ok", true},
          {"version", HOLDFAST_VERSION},
          {"pid", getpid()},
          {"started", started_unix_},
          {"detach_policy", parts_.fail_on_detach ? "fail" : "hold"},
          {"generation", parts_.cache->generation().value},
          {"fetcher", std::move(fetcher)},
          {"object_count", infos.size()},
          {"objects", std::move(objects)},
          {"store_trouble", parts_.cache->store_trouble()},
          {"requests", RequestsJson(parts_.cache->DescribeRequests())},
          {"counters",
           {{"reads", parts_.fuse->reads()},
            {"reads_waited", counters.reads_waited},
            {"reads_failed", counters.reads_failed},
            {"reads_withdrawn", counters.reads_withdrawn},
            {"reads_expired", counters.reads_expired},
            {"requests", counters.requests},
            {"bytes_filled", counters.bytes_filled},
            {"bytes_filled_twice", counters.bytes_filled_twice},
            {"bytes_found_wrong", counters.bytes_found_wrong},
            {"bytes_in_flight_at_detach", counters.bytes_in_flight_at_detach},
            {"bytes_synced", syncs.bytes},
            {"log_lines_left_out", parts_.cache->log().left_out()},
            {"sync_ms_max", Milliseconds(syncs.longest)}}}};
}

Result<ObjectInfo> ControlOps::AcquireObject(const json& request) {
  const auto [key, name] = NameIn(request);
  int64_t timeout_ms = 30'000;
  if (request.contains("timeout_ms") && request["timeout_ms"].is_number_unsigned()) {
    timeout_ms = request["timeout_ms"];
  }
  const bool replace = request.contains("replace_stale") && request["replace_stale"] == true;
  ASSIGN_OR_RETURN(const ObjectNumber volume, parts_.cache->AddVolume(key));

  const auto answered = std::make_shared<std::promise<Result<ObjectInfo>>>();
  const std::optional<cachecore::AcquireTicket> ticket = parts_.cache->Acquire(
      {volume, key}, name, std::chrono::milliseconds(std::max<int64_t>(timeout_ms, 1)), replace,
      [answered](const Result<ObjectInfo>& info) { answered->set_value(info); });
  const std::stop_callback let_go(stop_.get_token(), [&] {
    if (!ticket) return;
    (void)parts_.cache->Withdraw(*ticket,
                                 cachecore::Status(ECANCELED, "the daemon is stopping; try again"));
  });
  return answered->get_future().get();
}

json ControlOps::Acquire(const json& request) {
  const Result<ObjectInfo> info = AcquireObject(request);
  if (!info.ok()) return Failure(info.status().error(), info.status().message());
  parts_.cache->SetShut(info->number, false);
  const GrantName name{info->volume_key, info->cookie_key};
  const bool lent = request.contains("lend_ms") && request["lend_ms"].is_number_unsigned();
  const Result<uint64_t> grant =
      lent ? parts_.grants->Lend(name, std::chrono::milliseconds(
                                           std::min(request["lend_ms"].get<uint64_t>(), kMaxLoanMs)))
           : parts_.grants->Keep(name);
  if (!grant.ok()) return Failure(grant.status().error(), grant.status().message());
  return {{"ok", true},
          {"number", info->number.value},
          {"size", info->size_bytes},
          {"present", info->present_bytes},
          {"stale", info->stale},
          {"digest", TextOf(info->verity)},
          {"path", parts_.fuse_dir + "/" + info->volume_key + "/" + info->cookie_key},
          {"directory", parts_.fuse_dir + "/=" + std::to_string(*grant)}};
}

json ControlOps::Keep(const json& request) {
  const GrantName name = NameIn(request);
  if (!parts_.grants->Has(name)) {
    return Failure(ENOENT, name.volume + "/" + name.object + " was not acquired, or its time is up");
  }
  const Result<uint64_t> grant = parts_.grants->Keep(name);
  if (!grant.ok()) return Failure(grant.status().error(), grant.status().message());
  return {{"ok", true}};
}

json ControlOps::Release(const json& request) {
  const cachecore::Status released = parts_.grants->Release(NameIn(request));
  if (!released.ok()) return Failure(released.error(), released.message());
  return {{"ok", true}};
}

json ControlOps::Verify(const json& request) {
  const auto number = [&](const char* field, uint64_t otherwise) -> uint64_t {
    return request.contains(field) && request[field].is_number_unsigned()
               ? request[field].get<uint64_t>()
               : otherwise;
  };
  // What is known is enough; nobody is asked for an object that is not.
  const ObjectNumber object{number("number", 0)};
  const cachecore::ByteRange window =
      cachecore::ByteRange::At(number("offset", 0), std::min(number("length", 0), kMaxWindow));
  const auto patience = std::chrono::milliseconds(std::min<uint64_t>(
      number("timeout_ms", 30'000), std::chrono::milliseconds(kMaxPatience).count()));
  if (window.end < window.begin) return Failure(EINVAL, "the window ends past the last byte");
  const Result<cachecore::RecheckResult> found =
      parts_.cache->Recheck(object, window, patience, stop_.get_token());
  if (!found.ok()) return Failure(found.status().error(), found.status().message());
  return {{"ok", true},
          {"checked", found->checked_bytes},
          {"wrong", found->wrong_bytes},
          {"healed", found->healed_bytes},
          {"next", found->next},
          {"why", found->error}};
}

json ControlOps::Shut(const json& request) {
  const Result<ObjectInfo> info = AcquireObject(request);
  if (!info.ok()) return Failure(info.status().error(), info.status().message());
  parts_.cache->SetShut(info->number, true);
  return {{"ok", true}, {"number", info->number.value}};
}

}  // namespace fusefs
