#include "fetcher/engine/fetcher.h"

#include <glog/logging.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <queue>
#include <utility>
#include <vector>

namespace fetcher {
namespace wire = cachecore::wire;

namespace {

constexpr Duration kReconnectFirst = std::chrono::milliseconds(10);
constexpr Duration kReconnectCap = std::chrono::seconds(1);
constexpr Duration kIdleTimeout = std::chrono::hours(1);

FetcherOptions Complete(FetcherOptions options) {
  if (!options.files) {
    options.files = std::make_shared<LocalFiles>(
        RegisteredFiles(options.sources_dir, options.device), UniqueFd());
  }
  options.http.files = options.files.get();
  return options;
}

Status BrokerDeath() {
  return Status(EOWNERDEAD,
                "the process that opens files for the fetcher has died; both start again");
}

}  // namespace

Fetcher::Fetcher(FetcherOptions options, const cachecore::Clock& clock, FetcherHooks hooks)
    : options_(Complete(std::move(options))),
      clock_(clock),
      hooks_(std::move(hooks)),
      http_(options_.http),
      sources_(options_.files.get(), options_.connections, options_.environment, &http_, &file_) {}

Fetcher::~Fetcher() = default;

void Fetcher::Live() {
  const Duration now = clock_.Now();
  if (hooks_.alive_interval == Duration::zero() || now - lived_ < hooks_.alive_interval) return;
  lived_ = now;
  hooks_.alive();
}

bool Fetcher::BrokerGone() const {
  pollfd broker = {options_.files->broker_fd(), 0, 0};
  return broker.fd >= 0 && poll(&broker, 1, 0) != 0;
}

bool Fetcher::StoppedWithin(int stop_fd, Duration timeout) {
  const Duration end = clock_.Now() + timeout;
  while (true) {
    Live();
    Duration left = std::max(end - clock_.Now(), Duration::zero());
    if (hooks_.alive_interval != Duration::zero()) left = std::min(left, hooks_.alive_interval);
    pollfd stop = {stop_fd, POLLIN, 0};
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    if (poll(&stop, 1, static_cast<int>(ms)) > 0) return true;
    if (clock_.Now() >= end) return false;
  }
}

Result<std::unique_ptr<DeviceClient>> Fetcher::Attach(int stop_fd, UniqueFd* kept) {
  const auto waiting = [&] { return !StoppedWithin(stop_fd, Duration::zero()); };
  const bool is_new = !kept->valid();
  UniqueFd keep;
  const Result<std::string> path =
      is_new ? options_.files->DevicePath(options_.device, &keep) : options_.device;
  if (!path.ok()) return path.status();
  auto client = is_new ? DeviceClient::Connect(*path, options_.credits, waiting)
                       : DeviceClient::Resume(std::move(*kept), options_.credits, waiting);
  if (client.ok()) {
    LOG(INFO) << (is_new ? "attached to " : "resumed the connection to ") << options_.device
              << " as generation " << client.value()->generation().value;
    hooks_.attached(client.value()->fd(), is_new);
    return client;
  }
  // The daemon has died as well; it, or the next, is listening or will be.
  if (!is_new && client.status().error() != ECANCELED) return Attach(stop_fd, kept);
  return client;
}

Status Fetcher::Run(int stop_fd, UniqueFd kept) {
  RetryPolicy reconnect(kReconnectFirst, kReconnectCap, &random_);
  int logged_error = 0;  // Each reason why no daemon is attached is logged once a spell.
  while (true) {
    auto client = Attach(stop_fd, &kept);
    Status ended = client.ok() ? Status() : client.status();
    if (ended.ok()) {
      reconnect.Succeeded();
      logged_error = 0;
      client_ = std::move(client).value();
      ended = Serve(stop_fd);
      DropAll();
      if (ended.ok()) return ended;
    }
    if (ended.error() == ECANCELED) return Status();
    if (BrokerGone()) return BrokerDeath();
    if (ended.error() == EPERM || ended.error() == EPROTONOSUPPORT) return ended;
    if (ended.error() != logged_error) LOG(WARNING) << ended.message() << "; trying again";
    logged_error = ended.error();
    if (StoppedWithin(stop_fd, reconnect.NextDelay())) return Status();
  }
}

Status Fetcher::Serve(int stop_fd) {
  context_ = std::make_unique<FetchContext>(
      FetchContext{options_.fetch, client_.get(), clock_, &random_, &trees_, &spells_,
                   [this](ObjectId id, Duration at) { timers_.WakeAt(id, at); },
                   [this](const std::string& volume, const std::string& stamp) {
                     return sources_.IsOther(volume, stamp);
                   },
                   http_.tally()});
  while (true) {
    const short device_events = client_->WantsWrite() ? POLLIN | POLLOUT : POLLIN;
    std::array<pollfd, 3> fds = {{{client_->fd(), device_events, 0},
                                  {stop_fd, POLLIN, 0},
                                  {options_.files->broker_fd(), POLLIN, 0}}};
    http_.Wait(fds, NextTimeout());
    if (fds[1].revents != 0) return Status();
    if (fds[2].revents != 0) return BrokerDeath();
    Live();
    RETURN_IF_ERROR(client_->ReadMessages(this));
    FireTimers();
    Schedule();
    http_.Run();
    for (int i = 0; i < kFilePiecesPerTurn && !file_.idle(); ++i) file_.RunOnce();
    Schedule();  // What has ended made room.
    context_->declared_bytes = 0;
    TellCounts();
    RETURN_IF_ERROR(client_->Flush());
  }
}

void Fetcher::TellCounts() {
  if (!client_->TakesCounts()) return;
  for (const wire::CountCommand& count : http_.tally()->Take()) client_->Count(count);
}

void Fetcher::DropAll() {
  objects_.clear();
  busy_.clear();
  timers_.Clear();
  context_.reset();
  client_.reset();
}

Duration Fetcher::NextTimeout() const {
  if (!file_.idle()) return Duration::zero();
  const Duration now = clock_.Now();
  Duration timeout = kIdleTimeout;
  if (const auto next = timers_.Next()) timeout = std::min(timeout, *next - now);
  if (hooks_.alive_interval != Duration::zero()) {
    timeout = std::min(timeout, lived_ + hooks_.alive_interval - now);
  }
  return std::max(timeout, Duration::zero());
}

void Fetcher::FireTimers() {
  const Duration now = clock_.Now();
  while (const auto id = timers_.TakeDue(now)) {
    if (const auto object = objects_.find(*id); object != objects_.end()) object->second->OnTimer();
  }
}

void Fetcher::Drop(ObjectId id) {
  objects_.erase(id);
  timers_.Remove(id);
}

void Fetcher::Schedule() {
  using Entry = std::pair<uint64_t, ObjectFetcher*>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> line;
  for (auto it = busy_.begin(); it != busy_.end();) {
    const auto object = objects_.find(*it);
    if (object == objects_.end() || object->second->idle() || object->second->failed()) {
      if (object != objects_.end() && object->second->failed()) Drop(*it);
      it = busy_.erase(it);
      continue;
    }
    if (const auto order = object->second->NextOrder()) line.push({*order, object->second.get()});
    ++it;
  }
  const bool alone = line.size() == 1;
  while (!line.empty()) {
    ObjectFetcher* object = line.top().second;
    line.pop();
    if (!object->StartOne(alone)) continue;
    if (const auto order = object->NextOrder()) line.push({*order, object});
  }
}

void Fetcher::OnOpen(OpenRequest open) {
  if (const Status status = CheckObjectKey(open.cookie_key); !status.ok()) {
    client_->CopenError(open.msg_id, status.error(), status.message());
    return;
  }
  auto source = sources_.Open(open.volume_key);
  if (!source.ok()) {
    const Status& status = source.status();
    // This process ends before it takes another message, and the next one gets this OPEN again.
    if (status.error() == ECONNRESET && BrokerGone()) return;
    LOG_EVERY_N(WARNING, 100) << status.message() << " (" << google::COUNTER << " times)";
    client_->CopenError(open.msg_id, status.error(), status.message());
    return;
  }
  const ObjectId id = open.object_id;
  objects_[id] = std::make_unique<ObjectFetcher>(context_.get(), std::move(open),
                                                 std::move(*source), TakeOrder());
  busy_.insert(id);
}

void Fetcher::OnRead(MsgId msg_id, ObjectId object_id, ByteRange range) {
  const uint64_t order = TakeOrder();
  AddRead(msg_id, object_id, range, order, order);
}

void Fetcher::OnReadAhead(MsgId msg_id, ObjectId object_id, ByteRange range) {
  // Not for ever: a reader may have come to wait for it.
  constexpr uint64_t kOvertakenBy = 64;
  const uint64_t came = TakeOrder();
  AddRead(msg_id, object_id, range, came + 2 * kOvertakenBy + 1, came);
}

void Fetcher::AddRead(MsgId msg_id, ObjectId object_id, ByteRange range, uint64_t order,
                      uint64_t came) {
  const auto object = objects_.find(object_id);
  if (object == objects_.end()) {
    client_->Fail(object_id, msg_id, EIO, "the fetcher has not opened this object");
    return;
  }
  object->second->AddRead(msg_id, range, order, came);
  busy_.insert(object_id);
}

void Fetcher::OnClose(ObjectId object_id) { Drop(object_id); }

void Fetcher::OnRejected(const wire::Command& command, int error) {
  if (error != EINVAL) {
    const std::string text = wire::FormatCommand(command);
    // This OPEN had to find out that what is known still holds.
    LOG_IF(WARNING, error != EALREADY)
        << "holdfastd refused \"" << text.substr(0, 80) << "\": " << std::strerror(error);
  }
  // The object is not open in the daemon, so that no CLOSE of it will come.
  std::optional<ObjectId> closed;
  if (const auto* verity = std::get_if<wire::VerityCommand>(&command)) closed = verity->object_id;
  if (const auto* through = std::get_if<wire::ThroughCommand>(&command)) {
    if (const auto object = objects_.find(through->object_id); object != objects_.end()) {
      object->second->ThroughRefused(through->msg_id, through->range, TakeOrder());
      busy_.insert(through->object_id);
    }
  }
  std::optional<MsgId> open;
  if (const auto* copen = std::get_if<wire::CopenCommand>(&command)) open = copen->msg_id;
  // A request that the daemon has no cause to note for has been withdrawn.
  if (const auto* cause = std::get_if<wire::CauseCommand>(&command)) {
    for (auto& [id, object] : objects_) object->ForgetRead(cause->msg_id);
    open = cause->msg_id;
  }
  for (const auto& [id, object] : objects_) {
    if (open && object->IsOpenedBy(*open)) closed = id;
  }
  if (closed) Drop(*closed);
}

}  // namespace fetcher
