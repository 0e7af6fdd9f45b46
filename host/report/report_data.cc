#include "host/report/report_data.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/protocol/control_messages.h"
#include "host/instance/control_client.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/mount_record.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::ByteRange;
using cachecore::Deadline;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using nlohmann::json;

constexpr std::chrono::seconds kAnswerTime{60};

Result<MountRecord> CheckIsOneImage(const MountRecord& record) {
  if (record.layers.empty()) return record;
  std::string list;
  for (const std::string& layer : record.layers) list += " " + layer;
  return Status(EINVAL, record.mount_point + " has " + std::to_string(record.layers.size()) +
                            " layers, and a report is about one; name the layer:" + list);
}

Result<MountRecord> FindMountRecord(const Instance& instance, const std::string& mount_point) {
  std::vector<MountRecord> records = ListMountRecords(instance);
  if (mount_point.empty()) {
    HideLayers(&records);
    if (records.size() == 1) return CheckIsOneImage(records.front());
    return Status(records.empty() ? ENOENT : EINVAL,
                  records.empty() ? "instance " + instance.name() + " has no mounts"
                                  : "instance " + instance.name() +
                                        " has several mounts; name one (holdfast status lists "
                                        "them)");
  }
  const std::unique_ptr<char, void (*)(void*)> path(realpath(mount_point.c_str(), nullptr),
                                                    std::free);
  for (const MountRecord& record : records) {
    if (record.mount_point == mount_point || (path && record.mount_point == path.get())) {
      return CheckIsOneImage(record);
    }
  }
  return Status(ENOENT, mount_point + " is no mount of instance " + instance.name() +
                            " (holdfast status lists them)");
}

Ranges RangesOf(const json& answer, const char* key) {
  Ranges ranges;
  uint64_t begin = 0;
  bool is_end = false;
  for (const json& number : JsonField(answer, key)) {
    if (!number.is_number_unsigned()) return ranges;
    if (is_end) ranges.push_back({begin, number.get<uint64_t>()});
    begin = number.get<uint64_t>();
    is_end = !is_end;
  }
  return ranges;
}

ByteRange RangeOf(const json& item) {
  return ByteRange::At(static_cast<uint64_t>(JsonInt(item, field::kOffset)),
                       static_cast<uint64_t>(JsonInt(item, field::kLength)));
}

void AddReads(const json& list, bool waits, std::vector<ReportedRead>* reads) {
  for (const json& item : list) {
    const int64_t pid = JsonInt(item, field::kPid);
    reads->push_back({.range = RangeOf(item),
                      .started_us = JsonInt(item, field::kStartedUs),
                      .waited_us = JsonInt(item, field::kWaitedUs),
                      .pid = pid > 0 ? pid : JsonInt(item, field::kThread),
                      .command = JsonString(item, field::kCommand),
                      .error = static_cast<int>(JsonInt(item, field::kErrno)),
                      .why = JsonString(item, field::kWhy),
                      .waits = waits});
  }
}

// From the data file, where it has the bytes: a hole there is not of the image.
void ReadNames(const std::string& data_file, ReportData* data) {
  const UniqueFd file(open(data_file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    data->why_no_files = Status::FromErrno(errno, data_file).message();
    return;
  }
  Result<ErofsListing> listing = ListErofsFiles([&file, data](uint64_t offset, void* to,
                                                              size_t size) {
    if (offset > data->size_bytes || size > data->size_bytes - offset) return false;
    return Covers(data->present, ByteRange::At(offset, size)) &&
           pread(file.get(), to, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
  });
  if (listing.ok()) {
    data->listing = std::move(listing).value();
  } else {
    data->why_no_files = listing.status().message();
  }
}

}  // namespace

Result<ReportData> GatherReport(const Instance& instance, const std::string& mount_point) {
  ASSIGN_OR_RETURN(const MountRecord record, FindMountRecord(instance, mount_point));
  bool is_answered = false;
  const Result<json> answer =
      CallControl(instance.ControlSocket(),
                  control::EncodeRequest({.operation = control::Operation::kHistory,
                                          .volume = record.volume,
                                          .object = record.object}),
                  Deadline(kAnswerTime), &is_answered);
  if (!answer.ok()) {
    return is_answered ? Status(answer.status()) : WhyUnasked(instance, answer.status());
  }
  ReportData data;
  data.instance = instance.name();
  data.mount_point = record.mount_point;
  data.url = record.url;
  data.volume = record.volume;
  data.object = record.object;
  data.size_bytes = static_cast<uint64_t>(JsonInt(*answer, field::kSize));
  data.daemon_started_unix_s = JsonInt(*answer, field::kStarted);
  data.now_us = JsonInt(*answer, field::kNowUs);
  data.now_unix_us = JsonInt(*answer, field::kNowUnixUs);
  data.present = RangesOf(*answer, field::kPresentRanges);
  data.read = RangesOf(*answer, field::kReadRanges);
  data.culled = RangesOf(*answer, field::kCulledRanges);
  AddReads(JsonField(*answer, field::kEnded), false, &data.reads);
  AddReads(JsonField(*answer, field::kReadsWaiting), true, &data.reads);
  for (const json& item : JsonField(*answer, field::kFetches)) {
    data.fetches.push_back({.range = RangeOf(item),
                            .filled_bytes = static_cast<uint64_t>(JsonInt(item, field::kFilled)),
                            .started_us = JsonInt(item, field::kStartedUs),
                            .took_us = JsonInt(item, field::kWaitedUs),
                            .demanded = JsonBool(item, field::kDemanded)});
  }
  ReadNames(JsonString(*answer, field::kDataFile), &data);
  return data;
}

}  // namespace host
