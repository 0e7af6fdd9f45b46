#include "host/watch/slow_reads.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <optional>
#include <utility>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/deadline.h"
#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "host/instance/control_client.h"
#include "host/service/instance_control.h"
#include "host/watch/shown_paths.h"

namespace host {
namespace {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::Deadline;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::JsonText;
using cachecore::Result;
using cachecore::Status;
using cachecore::WithoutControls;
using nlohmann::json;

constexpr std::chrono::milliseconds kAskEvery{100};
constexpr std::chrono::seconds kAnswerTime{10};

std::string ClockText(int64_t unix_us) {
  const std::time_t seconds = unix_us / 1'000'000;
  std::tm fields = {};
  localtime_r(&seconds, &fields);
  char text[32];
  const size_t size = std::strftime(text, sizeof text, "%H:%M:%S", &fields);
  std::snprintf(text + size, sizeof text - size, ".%03d",
                static_cast<int>(unix_us % 1'000'000 / 1000));
  return text;
}

std::string SecondsText(int64_t us) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f s", static_cast<double>(us) / 1e6);
  return text;
}

class Follower {
 public:
  Follower(const Instance& instance, const SlowReadOptions& options, std::ostream& out,
           std::ostream& notes)
      : instance_(instance), options_(options), out_(out), notes_(notes), paths_(instance) {}

  Status Run() {
    const Result<json> first = Ask();
    if (!first.ok()) return WhyUnasked(instance_, first.status());
    pid_ = JsonInt(*first, field::kPid);
    after_ = static_cast<uint64_t>(JsonInt(*first, field::kLast));
    Note("following the reads of instance " + instance_.name() + " that wait for longer than " +
         SecondsText(Over()) + "; Ctrl-C ends it");
    // What waits already is shown first.
    bool is_all = true;
    while (out_) {
      const Status pause =
          is_all ? cachecore::WaitForFd(-1, 0, Deadline(kAskEvery)) : Status(ETIMEDOUT, "");
      if (pause.error() != ETIMEDOUT) return Status();  // A signal.
      const Result<json> answer = Ask();
      if (cachecore::StopSignalled()) return Status();
      is_all = !answer.ok() || Take(*answer);
      if (!answer.ok()) NoteSilence(answer.status());
      out_.flush();
    }
    // A write that waited for the reader of a pipe is interrupted by the signal that ends this.
    if (cachecore::StopSignalled()) out_.clear();
    return Status();
  }

 private:
  int64_t Over() const {
    return std::chrono::duration_cast<std::chrono::microseconds>(options_.over).count();
  }

  Result<json> Ask() const {
    return CallControl(instance_.ControlSocket(),
                       control::EncodeRequest({.operation = control::Operation::kTrace,
                                               .after = after_,
                                               .over_us = static_cast<uint64_t>(Over()),
                                               .since_us = since_us_}),
                       Deadline(kAnswerTime));
  }

  void Note(const std::string& sentence) {
    notes_ << "holdfast: " << WithoutControls(sentence) << std::endl;
  }

  void NoteSilence(const Status& why) {
    if (std::exchange(is_silent_, true)) return;
    Note("the daemon does not answer (" + why.message() + "); waiting for it or the next one");
  }

  // False: there is more to ask for at once.
  bool Take(const json& answer) {
    is_silent_ = false;
    if (const int64_t pid = JsonInt(answer, field::kPid); pid != pid_) {
      // Its serials are others, and this answer was chosen by those of the last daemon.
      pid_ = pid;
      after_ = 0;
      since_us_ = 0;
      PrintEvent("daemon", "pid", pid,
                 "the daemon was replaced; the reads that waited start again with pid " +
                     std::to_string(pid));
      return false;
    }
    if (const int64_t lost = JsonInt(answer, field::kLost); lost > 0) {
      PrintEvent("lost", "reads", lost,
                 "too many to follow: " + std::to_string(lost) +
                     " reads that waited, for however long, have ended unseen");
    }
    Print(answer, field::kReadsWaiting, "waiting");
    Print(answer, field::kEnded, "ended");
    if (const int64_t left_out = JsonInt(answer, field::kLeftOut); left_out > 0) {
      PrintEvent("left_out", "reads", left_out,
                 std::to_string(left_out) + " more reads wait, and are shown when they end");
    }
    after_ = static_cast<uint64_t>(JsonInt(answer, field::kLast));
    since_us_ = static_cast<uint64_t>(JsonInt(answer, field::kNowUs));
    return JsonBool(answer, field::kIsAll, true);
  }

  void PrintEvent(const char* event, const char* key, int64_t value, const std::string& sentence) {
    if (options_.json) {
      out_ << JsonText(json{{"event", event}, {key, value}}) << "\n";
    } else {
      out_ << "-- " << sentence << "\n";
    }
  }

  void Print(const json& answer, const char* list, const char* event) {
    const int64_t now_us = JsonInt(answer, field::kNowUs);
    const int64_t now_unix_us = JsonInt(answer, field::kNowUnixUs);
    for (const json& item : JsonField(answer, list)) {
      SlowRead read;
      read.event = event;
      read.waited_us = JsonInt(item, field::kWaitedUs);
      read.unix_us = now_unix_us - now_us + JsonInt(item, field::kStartedUs) + read.waited_us;
      const int64_t pid = JsonInt(item, field::kPid);
      read.pid = pid > 0 ? pid : JsonInt(item, field::kThread);
      read.command = JsonString(item, field::kCommand);
      read.volume = JsonString(item, field::kVolume);
      read.object = JsonString(item, field::kObject);
      read.paths = paths_.Of(read.volume, read.object);
      read.offset = static_cast<uint64_t>(JsonInt(item, field::kOffset));
      read.length = static_cast<uint64_t>(JsonInt(item, field::kLength));
      read.error = static_cast<int>(JsonInt(item, field::kErrno));
      read.why = JsonString(item, field::kWhy);
      out_ << (options_.json ? JsonText(SlowReadToJson(read)) : SlowReadToText(read)) << "\n";
    }
  }

  const Instance& instance_;
  const SlowReadOptions& options_;
  std::ostream& out_;
  std::ostream& notes_;
  ShownPaths paths_;
  int64_t pid_ = 0;
  std::optional<uint64_t> after_;
  uint64_t since_us_ = 0;
  bool is_silent_ = false;
};

}  // namespace

std::string SlowReadToText(const SlowRead& read) {
  const std::string time = SecondsText(read.waited_us);
  std::string what = read.event == "waiting" ? "waits  " + time + " so far" : "waited " + time;
  if (read.error != 0) {
    const char* name = strerrorname_np(read.error);
    what = "failed " + std::string(name != nullptr ? name : "?") + " after " + time;
  }
  const std::string object = read.volume + "/" + read.object;
  return ClockText(read.unix_us) + "  " + what + "  " +
         (read.pid == 0
              ? "reader not known"
              : "pid " + std::to_string(read.pid) + " (" +
                    (read.command.empty() ? "gone" : WithoutControls(read.command)) + ")") +
         "  " + WithoutControls(read.paths.empty() ? object : read.paths.front()) + " " +
         cachecore::ByteRange::At(read.offset, read.length).ToString() + ": " +
         WithoutControls(read.why);
}

json SlowReadToJson(const SlowRead& read) {
  const char* name = read.error == 0 ? "" : strerrorname_np(read.error);
  return {{"event", read.event},
          {"time", static_cast<double>(read.unix_us) / 1e6},
          {"pid", read.pid},
          {"command", read.command},
          {"paths", read.paths},
          {"volume", read.volume},
          {"object", read.object},
          {"offset", read.offset},
          {"length", read.length},
          {"waited_ms", static_cast<double>(read.waited_us) / 1e3},
          {"error", name != nullptr ? name : ""},
          {"why", read.why}};
}

Status FollowSlowReads(const Instance& instance, const SlowReadOptions& options, std::ostream& out,
                       std::ostream& notes) {
  return Follower(instance, options, out, notes).Run();
}

}  // namespace host
