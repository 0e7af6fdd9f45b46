#include "host/notify/notify_message.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace host {
namespace {

constexpr std::string_view kLineEnds = "\n\r";

// The value of "KEY=value" when the line has that key.
std::optional<std::string_view> ValueOf(std::string_view line, std::string_view key) {
  if (line.size() <= key.size() || !line.starts_with(key) || line[key.size()] != '=') {
    return std::nullopt;
  }
  return line.substr(key.size() + 1);
}

std::optional<uint64_t> ParseDecimal(std::string_view text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Repeated keys: the parse remembers which it has met, because an invalid first value still counts.
struct Met {
  bool fd_name = false;
  bool status = false;
  bool watchdog = false;
  bool watchdog_usec = false;
};

void ApplyLine(std::string_view line, Met* met, NotifyMessage* message) {
  if (line == "READY=1") {
    message->ready = true;
    message->stopping = false;
  } else if (line == "STOPPING=1") {
    message->stopping = true;
    message->ready = false;
  } else if (line == "BARRIER=1") {
    message->barrier = true;
  } else if (line == "FDSTORE=1") {
    message->fd_store = true;
  } else if (line == "FDSTOREREMOVE=1") {
    message->fd_store_remove = true;
  } else if (line == "FDPOLL=0") {
    message->fd_poll = false;
  } else if (auto name = ValueOf(line, "FDNAME"); name && !std::exchange(met->fd_name, true)) {
    if (IsValidFdName(*name)) message->fd_name = name;
  } else if (auto status = ValueOf(line, "STATUS"); status && !std::exchange(met->status, true)) {
    message->status = status;
  } else if (auto dog = ValueOf(line, "WATCHDOG"); dog && !std::exchange(met->watchdog, true)) {
    message->watchdog_ping = *dog == "1";
    message->watchdog_trigger = *dog == "trigger";
  } else if (auto usec = ValueOf(line, "WATCHDOG_USEC");
             usec && !std::exchange(met->watchdog_usec, true)) {
    message->watchdog_usec = ParseDecimal(*usec);
  }
}

}  // namespace

bool IsValidFdName(std::string_view name) {
  return name.size() <= kFdNameBytesMax && std::all_of(name.begin(), name.end(), [](char c) {
           return c >= ' ' && c < 0x7f && c != ':';
         });
}

std::optional<NotifyMessage> ParseNotifyMessage(std::string_view datagram) {
  if (datagram.size() > kNotifyDatagramBytesMax) return std::nullopt;
  if (!datagram.empty() && datagram.back() == '\0') datagram.remove_suffix(1);
  if (datagram.empty() || datagram.find('\0') != std::string_view::npos) return std::nullopt;

  NotifyMessage message;
  Met met;
  while (!datagram.empty()) {
    size_t end = std::min(datagram.find_first_of(kLineEnds), datagram.size());
    ApplyLine(datagram.substr(0, end), &met, &message);
    datagram.remove_prefix(std::min(end + 1, datagram.size()));
  }
  if (message.barrier) {
    NotifyMessage only_barrier;
    only_barrier.barrier = true;
    return only_barrier;
  }
  return message;
}

}  // namespace host
