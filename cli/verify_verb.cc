#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/offline/verify.h"
#include "cachecore/store/boot_id.h"
#include "cachecore/store/rocksdb_metadata_store.h"
#include "cli/command.h"
#include "host/instance/cache_dir.h"
#include "host/service/live_verify.h"

namespace cli {
namespace {

using cachecore::Finding;
using cachecore::JsonText;
using cachecore::Result;
using cachecore::Status;
using cachecore::VerifyReport;
using host::CacheDirOf;
using host::CheckIsCache;
using host::Instance;
using host::InstanceOptions;
using host::LiveVerify;
using host::LiveVerifyReport;

struct VerifyVerbOptions {
  InstanceOptions instance;
  std::string name;
  std::string timeout = "30s";
  std::string cache_dir;
  std::string boot_id;
  std::vector<std::string> contents;
  bool as_new_boot = false;
  bool json = false;
};

// VOLUME/COOKIE=FILE.  A volume key has no slash; a cookie may have any byte, so the last = counts.
Result<cachecore::VerifyOptions::Content> ParseContent(const std::string& text) {
  const size_t slash = text.find('/');
  const size_t equals = text.rfind('=');
  if (slash == std::string::npos || equals == std::string::npos || equals < slash) {
    return Status(EINVAL, "--content is VOLUME/COOKIE=FILE, not \"" + text + "\"");
  }
  return cachecore::VerifyOptions::Content{
      text.substr(0, slash), text.substr(slash + 1, equals - slash - 1), text.substr(equals + 1)};
}

nlohmann::json ToJson(const std::vector<Finding>& findings) {
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"subject", finding.subject}, {"what", finding.what}});
  }
  return list;
}

void PrintText(const VerifyReport& report) {
  for (const Finding& fault : report.faults) {
    std::cout << "fault: " << fault.subject << ": " << fault.what << '\n';
  }
  for (const Finding& note : report.notes) {
    std::cout << "note: " << note.subject << ": " << note.what << '\n';
  }
  std::cout << report.objects << " objects, " << report.present_bytes << " bytes present, "
            << report.durable_bytes << " of them durable; " << report.compared_bytes
            << " bytes compared; " << report.faults.size() << " faults, " << report.notes.size()
            << " notes\n";
}

void PrintJson(const VerifyReport& report) {
  const nlohmann::json printed = {{"faults", ToJson(report.faults)},
                                  {"notes", ToJson(report.notes)},
                                  {"objects", report.objects},
                                  {"present_bytes", report.present_bytes},
                                  {"durable_bytes", report.durable_bytes},
                                  {"compared_bytes", report.compared_bytes}};
  std::cout << JsonText(printed, 2) << '\n';
}

// A bar on a terminal, nothing elsewhere.
void ShowProgress(const LiveVerifyReport& report, uint64_t done) {
  constexpr uint64_t kWidth = 40;
  if (isatty(STDERR_FILENO) == 0 || report.size_bytes == 0) return;
  const auto full = static_cast<size_t>(done * kWidth / report.size_bytes);
  std::cerr << "\r[" << std::string(full, '#') << std::string(kWidth - full, ' ') << "] "
            << done * 100 / report.size_bytes << " %, " << report.wrong_bytes << " bytes wrong"
            << (done == report.size_bytes ? "\n" : "") << std::flush;
}

int RunLive(const Instance& instance, const VerifyVerbOptions& given) {
  if (!given.cache_dir.empty() || !given.contents.empty() || given.as_new_boot ||
      !given.boot_id.empty()) {
    return Fail(Status(EINVAL,
                       "with NAME a running daemon is asked; the other options are for "
                       "checking a cache directory, without NAME"),
                kExitUsage);
  }
  const Result<cachecore::Duration> timeout = cachecore::ParseDuration(given.timeout);
  if (!timeout.ok()) return Fail(Status(timeout.status()).WithContext("--timeout"), kExitUsage);
  const Result<LiveVerifyReport> report =
      LiveVerify(instance, given.name, std::chrono::ceil<std::chrono::milliseconds>(*timeout),
                 given.json ? [](const LiveVerifyReport&, uint64_t) {} : ShowProgress);
  if (!report.ok()) return Fail(report.status());
  if (given.json) {
    std::cout << JsonText({{"name", report->name},
                           {"digest", report->digest},
                           {"size", report->size_bytes},
                           {"checked", report->checked_bytes},
                           {"wrong", report->wrong_bytes},
                           {"healed", report->healed_bytes},
                           {"error", report->error}})
              << '\n';
  } else {
    std::cout << report->name << ": " << report->checked_bytes << " of " << report->size_bytes
              << " bytes present and checked, " << report->wrong_bytes << " wrong, "
              << report->healed_bytes << " of them healed\n";
  }
  if (report->healed_bytes == report->wrong_bytes) return kExitOk;
  return Fail(Status(EIO, report->name + ": " + report->error));
}

int RunVerify(const VerifyVerbOptions& given) {
  const Result<Instance> instance = given.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  if (!given.name.empty()) return RunLive(*instance, given);
  cachecore::VerifyOptions options;
  options.cache_dir = given.cache_dir.empty() ? CacheDirOf(*instance) : given.cache_dir;
  options.as_new_boot = given.as_new_boot;
  for (const std::string& text : given.contents) {
    Result<cachecore::VerifyOptions::Content> content = ParseContent(text);
    if (!content.ok()) return Fail(content.status(), kExitUsage);
    options.contents.push_back(std::move(content).value());
  }
  Result<std::string> boot_id = given.boot_id.empty() ? cachecore::ReadBootId(options.cache_dir)
                                                      : Result<std::string>(given.boot_id);
  if (!boot_id.ok()) return Fail(boot_id.status());
  options.boot_id = std::move(boot_id).value();
  if (const Status status = CheckIsCache(options.cache_dir); !status.ok()) return Fail(status);
  const Result<VerifyReport> report = cachecore::VerifyCache(options);
  if (!report.ok()) {
    return Fail(report.status(), report.status().error() == EINVAL ? kExitUsage : kExitFailed);
  }
  if (given.json) {
    PrintJson(*report);
  } else {
    PrintText(*report);
  }
  return EndOutput(report->faults.empty() ? kExitOk : kExitFailed);
}

}  // namespace

void AddVerify(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<VerifyVerbOptions>();
  app->add_option("NAME", options->name,
                  "A mount point or VOLUME/OBJECT: the running daemon checks it and mends it")
      ->type_name("");
  app->add_option("--timeout", options->timeout,
                  "With NAME: how long to wait for what is fetched again (default: 30s)")
      ->type_name("TIME");
  app->add_option("--cache-dir", options->cache_dir, "The cache directory (default: --instance's)")
      ->check(host::NotEmpty())
      ->type_name("DIR");
  app->add_option("--content", options->contents,
                  "Compare what is present of an object with a file; may be given again")
      ->type_name("VOLUME/COOKIE=FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app->add_flag("--as-new-boot", options->as_new_boot,
                "Trust only what is durable, as after a power cut");
  app->add_option("--boot-id", options->boot_id, "Take this for the machine's boot id (for tests)")
      ->type_name("ID");
  app->add_flag("--json", options->json, "Print JSON");
  options->instance.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunVerify(*options); });
}

}  // namespace cli
