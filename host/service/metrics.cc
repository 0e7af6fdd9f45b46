#include "host/service/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>

#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/files.h"
#include "cachecore/totals/totals.h"
#include "host/instance/supervisor_process.h"
#include "host/supervisor/supervise_fields.h"

namespace host {
namespace {

namespace field = cachecore::control::field;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::TimeTotals;
using nlohmann::json;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr double kMsPerSecond = 1000;
constexpr double kUsPerSecond = 1e6;

using Labels = std::vector<ClientMetric::Label>;

struct Sample {
  double value;
  Labels labels;                       // Beside the instance.
  ClientMetric::Histogram times = {};  // In place of the value.
};
using Samples = std::vector<Sample>;

bool Answers(const StatusReport& report) { return !report.daemon.empty(); }

// What holdfastd counts, in all its lives; an older one says what it has counted in this one.
const json& Counts(const StatusReport& report) {
  const json& totals = JsonField(report.daemon, field::kTotals);
  return totals.empty() ? JsonField(report.daemon, field::kCounters) : totals;
}

Samples Counter(const StatusReport& report, const char* name) {
  const json& counts = Counts(report);
  if (!counts.contains(name)) return {};
  return {{static_cast<double>(JsonInt(counts, name)), {}}};
}

// What is counted under a name with words after it: those are the values of these labels.
Samples CountedBy(const StatusReport& report, const std::string& name,
                  const std::vector<std::string>& labels) {
  Samples samples;
  for (const auto& [key, value] : Counts(report).items()) {
    std::istringstream words(key);
    std::string word;
    if (!(words >> word) || word != name) continue;
    Labels found;
    for (const std::string& label : labels) {
      if (words >> word) found.push_back({label, word});
    }
    if (found.size() == labels.size() && value.is_number()) {
      samples.push_back({value.get<double>(), std::move(found)});
    }
  }
  return samples;
}

Samples Times(const json& counts, const std::string& name, Labels labels) {
  if (!counts.contains(TimeTotals::SumName(name))) return {};
  Sample sample{0, std::move(labels)};
  ClientMetric::Histogram& times = sample.times;
  const auto& bounds = TimeTotals::kSeconds;
  for (size_t bucket = 0; bucket <= bounds.size(); ++bucket) {
    times.sample_count +=
        static_cast<uint64_t>(JsonInt(counts, TimeTotals::BucketName(name, bucket).c_str()));
    const double bound =
        bucket < bounds.size() ? bounds[bucket] : std::numeric_limits<double>::infinity();
    times.bucket.push_back({times.sample_count, bound});
  }
  times.sample_sum =
      static_cast<double>(JsonInt(counts, TimeTotals::SumName(name).c_str())) / kUsPerSecond;
  return {std::move(sample)};
}

Samples ReadsByResult(const StatusReport& report) {
  return CountedBy(report, "reads_by_result", {"result"});
}

Samples OriginRequests(const StatusReport& report) {
  return CountedBy(report, "origin_requests", {"host", "code"});
}

Samples OriginBytes(const StatusReport& report) {
  return CountedBy(report, "origin_bytes", {"host"});
}

Samples Retries(const StatusReport& report) { return CountedBy(report, "retries", {"cause"}); }

Samples ReadWaits(const StatusReport& report) { return Times(Counts(report), "read_wait", {}); }

Samples Up(const StatusReport& report) { return {{Answers(report) ? 1.0 : 0.0, {}}}; }

Samples Started(const StatusReport& report) {
  if (!Answers(report)) return {};
  return {{static_cast<double>(JsonInt(report.daemon, field::kStarted)), {}}};
}

// An instance with a cachefiles device has no fetcher.
Samples Attached(const StatusReport& report) {
  if (!Answers(report) || !JsonField(report.daemon, field::kCachefiles).empty()) return {};
  return {{JsonBool(JsonField(report.daemon, field::kFetcher), field::kAttached) ? 1.0 : 0.0, {}}};
}

Samples DeviceOpen(const StatusReport& report) {
  const json& device = JsonField(report.daemon, field::kCachefiles);
  if (device.empty()) return {};
  return {{JsonBool(device, "open") ? 1.0 : 0.0, {}}};
}

Samples StoreTrouble(const StatusReport& report) {
  if (!Answers(report)) return {};
  return {{JsonString(report.daemon, field::kStoreTrouble).empty() ? 0.0 : 1.0, {}}};
}

Samples Waiting(const StatusReport& report) {
  if (!Answers(report)) return {};
  const json requests = JsonField(report.daemon, field::kRequests);
  return {{static_cast<double>(JsonInt(requests, field::kWaiting)), {}}};
}

Samples OldestWait(const StatusReport& report) {
  if (!Answers(report)) return {};
  const json requests = JsonField(report.daemon, field::kRequests);
  return {{static_cast<double>(JsonInt(requests, field::kOldestMs)) / kMsPerSecond, {}}};
}

Samples Objects(const StatusReport& report) {
  if (!Answers(report)) return {};
  return {{static_cast<double>(JsonInt(report.daemon, field::kObjectCount)), {}}};
}

// Of a process that is there.
void AddDescriptors(const std::string& process, int64_t pid, Samples* samples) {
  if (pid <= 0) return;
  const size_t count = cachecore::ListDirectory("/proc/" + std::to_string(pid) + "/fd").size();
  if (count > 0) samples->push_back({static_cast<double>(count), {{"process", process}}});
}

Samples Descriptors(const StatusReport& report) {
  Samples samples;
  AddDescriptors(kDaemon, JsonInt(report.daemon, field::kPid), &samples);
  const json& fetcher = JsonField(report.daemon, field::kFetcher);
  AddDescriptors(kFetcher, JsonInt(fetcher, field::kPid), &samples);
  AddDescriptors("supervise", report.supervisor_pid, &samples);
  return samples;
}

Samples Mounts(const StatusReport& report) {
  const auto mounted = std::count_if(report.mounts.begin(), report.mounts.end(),
                                     [](const MountStatus& mount) { return mount.alive; });
  const auto lost = static_cast<double>(report.mounts.size()) - static_cast<double>(mounted);
  return {{static_cast<double>(mounted), {{"state", "mounted"}}}, {lost, {{"state", "lost"}}}};
}

Samples Restarts(const StatusReport& report) {
  Samples samples;
  for (const json& service : JsonField(report.supervise, supervise_field::kServices)) {
    const json& ends = JsonField(service, supervise_field::kEnds);
    int64_t restarts = ends.empty() ? JsonInt(service, supervise_field::kRestarts) : 0;
    for (const auto& [reason, count] : ends.items()) restarts += JsonInt(ends, reason.c_str());
    samples.push_back({static_cast<double>(restarts),
                       {{"service", JsonString(service, supervise_field::kName)}}});
  }
  return samples;
}

Samples Ends(const StatusReport& report) {
  Samples samples;
  for (const json& service : JsonField(report.supervise, supervise_field::kServices)) {
    const json& ends = JsonField(service, supervise_field::kEnds);
    for (const auto& [reason, count] : ends.items()) {
      samples.push_back(
          {static_cast<double>(JsonInt(ends, reason.c_str())),
           {{"service", JsonString(service, supervise_field::kName)}, {"reason", reason}}});
    }
  }
  return samples;
}

Samples Pauses(const StatusReport& report) {
  for (const json& service : JsonField(report.supervise, supervise_field::kServices)) {
    const json& pauses = JsonField(service, supervise_field::kPauses);
    if (JsonString(service, supervise_field::kName) != kDaemon || !pauses.is_array()) continue;
    json counts = {{TimeTotals::SumName("pause"), JsonInt(service, supervise_field::kPausesUs)}};
    for (size_t bucket = 0; bucket < pauses.size(); ++bucket) {
      counts[TimeTotals::BucketName("pause", bucket)] = pauses[bucket];
    }
    return Times(counts, "pause", {});
  }
  return {};
}

Samples Takeovers(const StatusReport& report) {
  if (!report.supervise.contains(supervise_field::kTakeovers)) return {};
  return {{static_cast<double>(JsonInt(report.supervise, supervise_field::kTakeovers) +
                               JsonInt(report.supervise, supervise_field::kTakeoversBefore)),
           {}}};
}

Samples HasStandby(const StatusReport& report) {
  const std::optional<StandbyState> standby = StandbyOf(report);
  if (!standby) return {};
  return {{standby->pid > 0 ? 1.0 : 0.0, {}}};
}

// Both of the supervisor and of its standby.
Samples SupervisorStopped(const StatusReport& report) {
  if (report.supervisor_pid <= 0) return {};
  return {{report.stopped.empty() ? 0.0 : 1.0, {}}};
}

struct Metric {
  const char* name;
  MetricType type;
  const char* help;
  Samples (*samples)(const StatusReport& report);
};

// Of the cache's limits and what they are about.
template <const char* kName>
Samples CacheBytes(const StatusReport& report) {
  const json cache = JsonField(report.daemon, field::kCache);
  if (!cache.contains(kName)) return {};
  return {{static_cast<double>(JsonInt(cache, kName)), {}}};
}

Samples CacheAboveLimit(const StatusReport& report) {
  const json cache = JsonField(report.daemon, field::kCache);
  if (!cache.contains(field::kTrouble)) return {};
  return {{JsonString(cache, field::kTrouble).empty() ? 0.0 : 1.0, {}}};
}

// A counter of holdfastd.
template <const char* kName>
Samples Counted(const StatusReport& report) {
  return Counter(report, kName);
}

constexpr char kReads[] = "reads", kReadsWaited[] = "reads_waited", kReadsFailed[] = "reads_failed",
               kReadsWithdrawn[] = "reads_withdrawn", kRequestsMade[] = "requests",
               kFilled[] = "bytes_filled", kFilledTwice[] = "bytes_filled_twice",
               kWrong[] = "bytes_found_wrong", kCulled[] = "bytes_culled",
               kThrough[] = "bytes_through", kSynced[] = "bytes_synced",
               kLeftOut[] = "log_lines_left_out";

constexpr auto kGauge = MetricType::Gauge;
constexpr auto kCounter = MetricType::Counter;
constexpr auto kHistogram = MetricType::Histogram;

// Each line is one of docs/metrics.md.
constexpr Metric kMetrics[] = {
    {"holdfast_up", kGauge, "Whether holdfastd of the instance answers.", Up},
    {"holdfast_start_time_seconds", kGauge, "When this holdfastd started, since 1970.", Started},
    {"holdfast_fetcher_attached", kGauge, "Whether a fetcher is attached.", Attached},
    {"holdfast_cachefiles_open", kGauge, "Whether a program has the cachefiles device open.",
     DeviceOpen},
    {"holdfast_store_trouble", kGauge, "Whether the database takes no writes.", StoreTrouble},
    {"holdfast_reads_total", kCounter, "Reads of the kernel.", Counted<kReads>},
    {"holdfast_reads_waited_total", kCounter, "Reads that waited for bytes.",
     Counted<kReadsWaited>},
    {"holdfast_reads_failed_total", kCounter, "Reads that ended with an error.",
     Counted<kReadsFailed>},
    {"holdfast_reads_withdrawn_total", kCounter, "Reads that ended with their reader.",
     Counted<kReadsWithdrawn>},
    {"holdfast_reads_by_result_total", kCounter, "Reads that have ended, by how.", ReadsByResult},
    {"holdfast_read_wait_seconds", kHistogram, "How long reads that waited have waited.",
     ReadWaits},
    {"holdfast_requests_total", kCounter, "OPEN, READ and CLOSE requests.", Counted<kRequestsMade>},
    {"holdfast_requests_waiting", kGauge, "Requests that readers or mounts wait for.", Waiting},
    {"holdfast_oldest_wait_seconds", kGauge, "Age of the oldest of them.", OldestWait},
    {"holdfast_origin_requests_total", kCounter,
     "Requests to HTTP origins, by host and status of the answer.", OriginRequests},
    {"holdfast_origin_bytes_total", kCounter, "Bytes that HTTP origins have sent.", OriginBytes},
    {"holdfast_retries_total", kCounter, "Transfers that failed and were made again.", Retries},
    {"holdfast_filled_bytes_total", kCounter, "Bytes declared present.", Counted<kFilled>},
    {"holdfast_filled_twice_bytes_total", kCounter, "Bytes declared that were present.",
     Counted<kFilledTwice>},
    {"holdfast_wrong_bytes_total", kCounter, "Bytes that a digest found wrong.", Counted<kWrong>},
    {"holdfast_culled_bytes_total", kCounter, "Bytes removed to keep the cache's limits.",
     Counted<kCulled>},
    {"holdfast_through_bytes_total", kCounter, "Bytes served on a full disk without being kept.",
     Counted<kThrough>},
    {"holdfast_synced_bytes_total", kCounter, "Bytes whose presence was made durable.",
     Counted<kSynced>},
    {"holdfast_log_lines_left_out_total", kCounter, "Log lines that the rate limit left out.",
     Counted<kLeftOut>},
    {"holdfast_cache_bytes", kGauge, "What the data files have of the disk.",
     CacheBytes<field::kAllocated>},
    {"holdfast_cache_max_bytes", kGauge, "The most that they may have; 0 without a limit.",
     CacheBytes<field::kMaxBytes>},
    {"holdfast_cache_min_free_bytes", kGauge, "What is to be left free; 0 without a limit.",
     CacheBytes<field::kMinFreeBytes>},
    {"holdfast_cache_free_bytes", kGauge, "What is free on the disk of the cache.",
     CacheBytes<field::kFree>},
    {"holdfast_cache_above_limit", kGauge, "Whether a limit of the cache is not kept.",
     CacheAboveLimit},
    {"holdfast_objects", kGauge, "Known objects.", Objects},
    {"holdfast_open_descriptors", kGauge, "Descriptors that a process has open.", Descriptors},
    {"holdfast_mounts", kGauge, "Mounts by state.", Mounts},
    {"holdfast_service_restarts_total", kCounter, "Starts after a death, by service.", Restarts},
    {"holdfast_service_ends_total", kCounter, "Deaths after which a service was started again.",
     Ends},
    {"holdfast_recovery_pause_seconds", kHistogram,
     "From a death of holdfastd until the next one serves.", Pauses},
    {"holdfast_supervisor_takeovers_total", kCounter,
     "How often a standby has become the supervisor.", Takeovers},
    {"holdfast_supervisor_standby", kGauge, "Whether a standby would become the supervisor.",
     HasStandby},
    {"holdfast_supervisor_stopped", kGauge,
     "Whether a signal has stopped the supervisor or its standby.", SupervisorStopped},
};

void Put(Sample sample, MetricType type, ClientMetric* metric) {
  if (type == kHistogram) {
    metric->histogram = std::move(sample.times);
  } else {
    (type == kCounter ? metric->counter.value : metric->gauge.value) = sample.value;
  }
}

}  // namespace

std::string MetricsText(const std::vector<StatusReport>& reports) {
  std::vector<MetricFamily> families;
  for (const Metric& metric : kMetrics) {
    MetricFamily family{metric.name, metric.help, metric.type, {}};
    for (const StatusReport& report : reports) {
      for (Sample& sample : metric.samples(report)) {
        ClientMetric& one = family.metric.emplace_back();
        one.label = std::move(sample.labels);
        one.label.insert(one.label.begin(), {"instance_name", report.instance});
        Put(std::move(sample), metric.type, &one);
      }
    }
    if (!family.metric.empty()) families.push_back(std::move(family));
  }
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return text.str();
}

}  // namespace host
