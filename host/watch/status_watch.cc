#include "host/watch/status_watch.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <iterator>
#include <tuple>
#include <utility>

#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/progress.h"
#include "cachecore/protocol/control_messages.h"
#include "host/service/status_check.h"

namespace host {

// One of a frame.
struct WatchedImage {
  std::string name;
  int64_t size = 0;
  int64_t present = 0;
  double mb_s = -1;
  int64_t waiting = 0;
  int64_t oldest_ms = 0;
  std::string trouble;

  // The worst is the least.
  auto Rank() const {
    return std::tuple(trouble.empty(), -oldest_ms, -mb_s, present >= size, name);
  }
};

namespace {

namespace field = cachecore::control::field;
using cachecore::Duration;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::WithoutControls;
using nlohmann::json;

// How long it is said that a daemon was replaced.
constexpr std::chrono::seconds kSayReplaced{30};
// Ages of waiting reads: below each of these, and longer.
struct AgeClass {
  int64_t below_ms;
  const char* name;
};
constexpr AgeClass kAges[] = {
    {1000, "below 1 s"}, {10'000, "below 10 s"}, {60'000, "below 1 min"}, {INT64_MAX, "longer"}};

template <typename... Values>
std::string Printed(const char* format, Values... values) {
  char text[128];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

std::string Clock(int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm fields = {};
  localtime_r(&time, &fields);
  char text[16];
  std::strftime(text, sizeof text, "%H:%M:%S", &fields);
  return text;
}

std::string Up(int64_t seconds) {
  seconds = std::max<int64_t>(seconds, 0);
  if (seconds < 60) return Printed("%d s", static_cast<int>(seconds));
  if (seconds < 3600) return Printed("%d min", static_cast<int>(seconds / 60));
  if (seconds < 86400) return Printed("%d h", static_cast<int>(seconds / 3600));
  return Printed("%d d", static_cast<int>(seconds / 86400));
}

// Cut to `columns`, or filled up with blanks; bytes of one character stay together.
std::string Fit(const std::string& text, size_t columns, bool fill) {
  std::string fitted;
  size_t width = 0;
  for (size_t i = 0; i < text.size();) {
    size_t next = i + 1;
    while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xc0) == 0x80) ++next;
    if (width == columns) break;
    fitted.append(text, i, next - i);
    ++width;
    i = next;
  }
  if (fill) fitted.append(columns - width, ' ');
  return fitted;
}

// Its end says more than its beginning.
std::string FitPath(const std::string& path, size_t columns) {
  if (path.size() <= columns || columns <= 3) return Fit(path, columns, true);
  return Fit("..." + path.substr(path.size() - (columns - 3)), columns, true);
}

// A rate of a count that each daemon begins at 0; negative: not known.
double Rate(const json& now, const json& before, const char* key, double seconds) {
  if (seconds <= 0) return -1;
  return std::max(0.0, static_cast<double>(JsonInt(now, key) - JsonInt(before, key))) / seconds;
}

std::string RateText(double rate, const char* unit) {
  return rate < 0 ? Printed("-%s", unit) : Printed("%.1f%s", rate, unit);
}

std::string TroubleOf(const json& object) {
  const std::string error = WithoutControls(JsonString(object, field::kError));
  if (JsonBool(object, field::kFull)) return "disk full: served without being kept";
  if (!error.empty()) return error;
  return JsonBool(object, field::kStale) ? "stale: changed at its origin" : "";
}

// Where it is mounted, or its name.
std::string NameOf(const StatusReport& report, const json& object) {
  const std::string volume = JsonString(object, field::kVolume);
  const std::string name = JsonString(object, field::kName);
  for (const MountStatus& mount : report.mounts) {
    if (mount.record.volume == volume && mount.record.object == name) {
      return WithoutControls(mount.record.mount_point);
    }
  }
  return WithoutControls(volume + "/" + name);
}

std::vector<WatchedImage> ImagesOf(const StatusReport& report, const json& before, double seconds) {
  std::map<int64_t, const json*> earlier;
  for (const json& object : JsonField(before, field::kObjects)) {
    earlier[JsonInt(object, field::kNumber)] = &object;
  }
  std::map<int64_t, WatchedImage> images;
  for (const json& object : JsonField(report.daemon, field::kObjects)) {
    const int64_t number = JsonInt(object, field::kNumber);
    const auto found = earlier.find(number);
    const double rate =
        found == earlier.end() ? -1 : Rate(object, *found->second, field::kPresent, seconds) / 1e6;
    images[number] = {NameOf(report, object),
                      JsonInt(object, field::kSize),
                      JsonInt(object, field::kPresent),
                      rate,
                      0,
                      0,
                      TroubleOf(object)};
  }
  for (const json& request : JsonField(JsonField(report.daemon, field::kRequests), field::kList)) {
    const auto image = images.find(JsonInt(request, field::kObject));
    if (JsonInt(request, field::kWaiters) == 0 || image == images.end()) continue;
    image->second.waiting += JsonInt(request, field::kWaiters);
    image->second.oldest_ms = std::max(image->second.oldest_ms, JsonInt(request, field::kAgeMs));
  }
  std::vector<WatchedImage> sorted;
  for (auto& [number, image] : images) sorted.push_back(std::move(image));
  std::sort(sorted.begin(), sorted.end(),
            [](const WatchedImage& a, const WatchedImage& b) { return a.Rank() < b.Rank(); });
  return sorted;
}

// "12 reads wait: 3 below 1 s, 9 longer; the oldest 75.0 s", and why.
std::vector<std::string> WaitLines(const json& requests) {
  std::array<int64_t, std::size(kAges)> counts = {};
  int64_t total = 0, oldest_ms = -1;
  std::string cause;
  for (const json& request : JsonField(requests, field::kList)) {
    const int64_t waiters = JsonInt(request, field::kWaiters);
    const int64_t age_ms = JsonInt(request, field::kAgeMs);
    if (waiters == 0) continue;
    total += waiters;
    size_t age = 0;
    while (age_ms >= kAges[age].below_ms) ++age;
    counts[age] += waiters;
    if (age_ms > oldest_ms) {
      oldest_ms = age_ms;
      cause = WithoutControls(JsonString(request, field::kCause));
    }
  }
  if (total == 0) return {"  no read waits"};
  std::string text = "  " + std::to_string(total) + (total == 1 ? " read waits:" : " reads wait:");
  for (size_t age = 0; age < counts.size(); ++age) {
    if (counts[age] > 0) text += " " + std::to_string(counts[age]) + " " + kAges[age].name + ",";
  }
  text.back() = ';';
  text += Printed(" the oldest %.1f s", static_cast<double>(oldest_ms) / 1e3);
  std::vector<std::string> lines = {text};
  if (!cause.empty()) lines.push_back("    " + cause);
  return lines;
}

std::string RateLine(const StatusReport& report, const json& before, double seconds) {
  const json& now = JsonField(report.daemon, field::kCounters);
  const double reads = Rate(now, before, "reads", seconds);
  const double misses = Rate(now, before, "reads_waited", seconds);
  const std::string hits =
      reads <= 0 ? "-" : Printed("%.1f %%", 100 * std::max(0.0, 1 - misses / reads));
  return "  reads " + RateText(reads, "/s") + ", that wait " + RateText(misses, "/s") + ", hits " +
         hits + ", fetched " + RateText(Rate(now, before, "bytes_filled", seconds) / 1e6, " MB/s");
}

std::string ImageHeading(size_t columns) {
  return Fit("  image", columns > 42 ? columns - 40 : 2, true) +
         Printed(" %11s %8s %8s %9s", "size", "present", "MB/s", "waiting");
}

std::string ImageLine(const WatchedImage& image, size_t columns) {
  const double share =
      image.size == 0 ? 100 : static_cast<double>(image.present * 1000 / image.size) / 10;
  const std::string waits = image.waiting == 0
                                ? "-"
                                : Printed("%d/%.0fs", static_cast<int>(image.waiting),
                                          static_cast<double>(image.oldest_ms) / 1e3);
  return "  " + FitPath(image.name, columns > 42 ? columns - 42 : 1) +
         Printed(" %11s %6.1f %% %8s %9s",
                 cachecore::BytesText(static_cast<uint64_t>(image.size)).c_str(), share,
                 RateText(image.mb_s, "").c_str(), waits.c_str());
}

}  // namespace

// What a frame has of one instance.
struct StatusWatch::Part {
  Health health = Health::kFine;
  bool counts = true;
  int64_t oldest_ms = 0;
  std::string name;
  std::vector<std::string> lines;
  std::vector<WatchedImage> images;
};

StatusWatch::Part StatusWatch::PartOf(const StatusReport& report, Duration at, int64_t unix_s) {
  Part part;
  part.name = report.instance;
  part.counts = Counts(report, is_named_);
  const StatusCheck check = CheckStatus({report}, is_named_);
  part.health = check.health;
  const std::string fine = part.counts ? "OK" : "does not run";
  part.lines.push_back("instance " + report.instance + "  " +
                       (check.health == Health::kFine ? fine : check.line));
  Seen& seen = seen_[report.instance];
  if (report.daemon.empty()) return part;
  const json before = std::exchange(seen.report, report).daemon;
  const Duration elapsed = at - std::exchange(seen.at, at);
  const int64_t pid = JsonInt(report.daemon, field::kPid);
  const bool is_same = !before.is_null() && JsonInt(before, field::kPid) == pid;
  if (!before.is_null() && !is_same) {
    seen.replaced = "  the daemon was replaced: pid " +
                    std::to_string(JsonInt(before, field::kPid)) + " is now " +
                    std::to_string(pid) + " (noticed at " + Clock(unix_s) + ")";
    seen.replaced_until = at + kSayReplaced;
  }
  const double seconds = is_same ? std::chrono::duration<double>(elapsed).count() : 0;
  if (at < seen.replaced_until) part.lines.push_back(seen.replaced);
  part.lines.push_back(RateLine(report, JsonField(before, field::kCounters), seconds) + ", up " +
                       Up(unix_s - JsonInt(report.daemon, field::kStarted)));
  const json& requests = JsonField(report.daemon, field::kRequests);
  part.oldest_ms = JsonInt(requests, field::kOldestMs);
  for (std::string& line : WaitLines(requests)) part.lines.push_back(std::move(line));
  part.images = ImagesOf(report, before, seconds);
  return part;
}

std::vector<std::string> StatusWatch::Frame(const std::vector<StatusReport>& reports, Duration at,
                                            int64_t unix_s, FrameSize size) {
  std::vector<Part> parts;
  size_t fixed = 2;  // The heading, and what was left out.
  for (const StatusReport& report : reports) {
    parts.push_back(PartOf(report, at, unix_s));
    fixed += parts.back().lines.size() + 1;
  }
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    const auto rank = [](const Part& part) {
      return std::tuple(-static_cast<int>(part.health), !part.counts, -part.oldest_ms, part.name);
    };
    return rank(a) < rank(b);
  });
  std::vector<std::string> lines = {"holdfast status at " + Clock(unix_s) +
                                    (reports.empty() ? ": no instances" : "")};
  // Each instance gets its share of the rows; what one does not need is the next one's.
  size_t rows = size.rows > fixed ? size.rows - fixed : 0;
  size_t left_out = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    lines.insert(lines.end(), parts[i].lines.begin(), parts[i].lines.end());
    const size_t shown = std::min(parts[i].images.size(), rows / (parts.size() - i));
    if (shown > 0) lines.push_back(ImageHeading(size.columns));
    for (size_t image = 0; image < shown; ++image) {
      lines.push_back(ImageLine(parts[i].images[image], size.columns));
      const std::string& trouble = parts[i].images[image].trouble;
      if (!trouble.empty()) lines.back() += "  " + trouble;
    }
    rows -= shown;
    left_out += parts[i].images.size() - shown;
  }
  if (lines.size() > size.rows) lines.resize(std::max<size_t>(size.rows, 1) - 1), ++left_out;
  if (left_out > 0) lines.push_back("  and more: holdfast status shows all");
  for (std::string& line : lines) line = Fit(line, size.columns, false);
  return lines;
}

}  // namespace host
