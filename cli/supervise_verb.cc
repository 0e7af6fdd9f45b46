#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/environment/secret_environment.h"
#include "cachecore/system/files.h"
#include "cachecore/system/process_limits.h"
#include "cachecore/system/subprocess.h"
#include "cli/command.h"
#include "host/config/config_settings.h"
#include "host/config/loopback_address.h"
#include "host/instance/fetcher_user.h"
#include "host/instance/privileges.h"
#include "host/instance/settings.h"
#include "host/instance/supervisor_process.h"
#include "host/instance/systemd_unit.h"
#include "host/instance/trusted_directory.h"
#include "host/service/adoption.h"
#include "host/service/instance_control.h"
#include "host/supervisor/supervisor.h"

namespace cli {
namespace {

using cachecore::Deadline;
using cachecore::FindProgram;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::MakePrivateDirectory;
using cachecore::ReadJsonFile;
using cachecore::Result;
using cachecore::SecretEnvironment;
using cachecore::Status;
using cachecore::UniqueFd;
using host::AskedMounts;
using host::CheckLoopback;
using host::DaemonUnit;
using host::DetachLostDevice;
using host::DetachLostMounts;
using host::FetcherUser;
using host::FindFetcherUser;
using host::Instance;
using host::InstanceOptions;
using host::IsRunElsewhere;
using host::kCachefilesFlag;
using host::kDaemon;
using host::KeepSuperviseFlags;
using host::kFetcher;
using host::kFetcherProgram;
using host::kInstanceDirMode;
using host::kMetricsProgram;
using host::kMetricsService;
using host::kSupervisor;
using host::MakeTrustedDirectory;
using host::MountRecord;
using host::RequireMountRights;
using host::RunSupervisor;
using host::ServicePid;
using host::ServiceSpec;
using host::Settings;
using host::StoredBy;
using host::SupervisorOptions;
using host::SupervisorPidFile;
using host::WithConfig;

// The FUSE connection, the device's listening socket and connection, and room for what comes.
constexpr size_t kDaemonFdStoreMax = 64;
// The fetcher's connection to the daemon, for a moment the next one beside it, and its environment.
constexpr size_t kFetcherFdStoreMax = 5;

// To ask the daemons' programs about their flags.
constexpr std::chrono::seconds kConfigTime{30};

constexpr char kFetcherUserFlag[] = "--fetcher-user";
constexpr char kMetricsListenFlag[] = "--metrics-listen";
constexpr char kDeviceFlag[] = "--cachefiles-device";
constexpr char kNoStandbyFlag[] = "--no-standby";

struct SuperviseOptions {
  InstanceOptions instance;
  std::string fetcher_user;
  std::string metrics_listen;
  std::string cachefiles_device;
  bool keep_standby = true;
  bool can_exchange = false;
};

// It keeps nothing: what it serves is the others'.  Without its program there are no metrics by HTTP.
Status AddMetricsService(const Instance& instance, const std::string& listen,
                         std::vector<ServiceSpec>* services) {
  if (!listen.empty()) RETURN_IF_ERROR(CheckLoopback(listen).WithContext("--metrics-listen"));
  const Result<std::string> program = FindProgram(kMetricsProgram);
  if (!program.ok()) {
    std::cerr << "holdfast: no metrics are served: " << program.status().message() << std::endl;
    return Status();
  }
  ServiceSpec service;
  service.name = kMetricsService;
  service.argv = {*program, "--root", instance.root().empty() ? "/" : instance.root(), "--instance",
                  instance.name()};
  if (!listen.empty()) service.argv.push_back("--listen=" + listen);
  services->push_back(std::move(service));
  return Status();
}

// `environment`: the memory file with the fetcher's secrets, if there are any.  `is_exchange`: how
// they are started is known from the program before this one.
Result<SupervisorOptions> ServicesOf(const Instance& instance, const UniqueFd& environment,
                                     const SuperviseOptions& given, bool is_exchange) {
  Settings settings;  // Without a settings file: the default ones.
  const Result<nlohmann::json> file = ReadJsonFile(instance.SettingsFile());
  if (file.ok()) {
    settings = Settings::FromJson(*file);
  } else if (!is_exchange) {
    ASSIGN_OR_RETURN(settings, WithConfig(instance, settings, Deadline(kConfigTime)));
  }
  if (!given.cachefiles_device.empty()) {
    if (given.cachefiles_device[0] != '/') {
      return Status(EINVAL,
                    "--cachefiles-device " + given.cachefiles_device + " must be an absolute path");
    }
    settings.daemon_flags.push_back(kCachefilesFlag + given.cachefiles_device);
  }
  ASSIGN_OR_RETURN(
      const FetcherUser user,
      FindFetcherUser(given.fetcher_user.empty() ? settings.fetcher_user : given.fetcher_user));
  ASSIGN_OR_RETURN(const std::string daemon, FindProgram(kDaemon));
  ASSIGN_OR_RETURN(const std::string fetcher, FindProgram(kFetcherProgram));

  ServiceSpec daemon_service;
  daemon_service.name = kDaemon;
  daemon_service.argv = {daemon, "--cache-dir=" + settings.CacheDirFor(instance),
                         "--run-dir=" + instance.RunDir(),
                         "--fetcher-uid=" + std::to_string(user.uid)};
  daemon_service.argv.insert(daemon_service.argv.end(), settings.daemon_flags.begin(),
                             settings.daemon_flags.end());
  daemon_service.fd_store_max = kDaemonFdStoreMax;
  daemon_service.required_ready = true;
  daemon_service.keep_spare = settings.keep_spare;

  ServiceSpec fetcher_service;
  fetcher_service.name = kFetcher;
  fetcher_service.argv = {fetcher, "--device=" + instance.DeviceSocket(),
                          "--sources-dir=" + instance.SourcesDir(), "--user=" + user.name};
  fetcher_service.uid = user.uid;
  fetcher_service.brings = true;
  fetcher_service.argv.insert(fetcher_service.argv.end(), settings.fetcher_flags.begin(),
                              settings.fetcher_flags.end());
  fetcher_service.fd_store_max = kFetcherFdStoreMax;
  if (environment.valid()) {
    fetcher_service.stored_fds = {{SecretEnvironment::kStoredName, environment.get()}};
  }
  // Not required_ready: one that has no daemon to attach to is no worse for it.

  SupervisorOptions options;
  options.run_dir = instance.RunDir();
  options.status_path = instance.SuperviseStatus();
  options.totals_path = instance.SuperviseTotals();
  options.log_path = instance.LogFile(kSupervisor);
  options.services = {daemon_service};
  // A client of the cachefiles device is in the fetcher's place.
  if (!settings.HasCachefilesDevice()) options.services.push_back(fetcher_service);
  for (ServiceSpec& service : options.services) service.watchdog = settings.watchdog;
  const std::string& listen =
      given.metrics_listen.empty() ? settings.metrics_listen : given.metrics_listen;
  RETURN_IF_ERROR(AddMetricsService(instance, listen, &options.services));
  for (ServiceSpec& service : options.services) {
    service.log_path = instance.LogFile(service.name);
    service.pid_path = instance.PidFile(service.name);
  }
  return options;
}

// Before anything else: the daemon's environment is a copy of ours.
Result<UniqueFd> TakeSecrets() {
  const SecretEnvironment secrets = SecretEnvironment::Take();
  if (secrets.empty()) return UniqueFd();
  return secrets.Store();
}

// One that its parent's death is to end, or with which its PID namespace ends, has no use for a
// standby.  Null: it has one.
const char* WhyNoStandby(const SuperviseOptions& given) {
  if (!given.keep_standby) return "--no-standby was given";
  if (getpid() == 1) return "the supervisor is process 1, and its PID namespace ends with it";
  int signal = 0;
  prctl(PR_GET_PDEATHSIG, &signal);
  return signal != 0 ? "a signal ends the supervisor with its parent (PR_SET_PDEATHSIG)" : nullptr;
}

// What the program before this one has left in this process: descriptors that are open, and how its
// services are started, which counts until the instance is stopped.
constexpr char kExchangeVariable[] = "HOLDFAST_SUPERVISOR_EXCHANGE";

struct Exchange {
  bool is_one = false;
  nlohmann::json services;
  std::vector<int> fds;
};

Exchange TakeExchange() {
  const char* const text = std::getenv(kExchangeVariable);
  if (text == nullptr) return {};
  Exchange exchange{true, nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false), {}};
  unsetenv(kExchangeVariable);
  return exchange;
}

// The arguments of this process, also where a standby has taken over.
Result<std::vector<std::string>> OwnArguments() {
  ASSIGN_OR_RETURN(const std::string line, cachecore::ReadFile("/proc/self/cmdline"));
  std::vector<std::string> arguments;
  std::istringstream stream(line);
  for (std::string one; std::getline(stream, one, '\0');) arguments.push_back(one);
  return arguments;
}

Status RunNewProgram(const std::vector<ServiceSpec>& services,
                     const std::vector<StoredBy>& stored) {
  ASSIGN_OR_RETURN(const std::string program, FindProgram("holdfast"));
  ASSIGN_OR_RETURN(std::vector<std::string> arguments, OwnArguments());
  std::vector<char*> argv;
  for (std::string& one : arguments) argv.push_back(one.data());
  argv.push_back(nullptr);
  nlohmann::json list = nlohmann::json::object();
  for (const ServiceSpec& service : services) {
    list[service.name] = {{"argv", service.argv},
                          {"uid", service.uid},
                          {"watchdog_ms", service.watchdog.count()},
                          {"keep_spare", service.keep_spare},
                          {"stored", nlohmann::json::object()}};
  }
  for (const StoredBy& one : stored) {
    if (fcntl(one.fd, F_SETFD, 0) == 0)
      list[one.service]["stored"][std::to_string(one.fd)] = one.name;
  }
  setenv(kExchangeVariable, cachecore::RecordText(list).c_str(), /*overwrite=*/1);
  execv(program.c_str(), argv.data());
  const int error = errno;
  unsetenv(kExchangeVariable);
  for (const StoredBy& one : stored) fcntl(one.fd, F_SETFD, FD_CLOEXEC);
  return Status(error, "run " + program + ": " + std::strerror(error));
}

// Services as they were started, with what they had stored.
std::vector<ServiceSpec> GoOnWith(Exchange* exchange, const std::vector<ServiceSpec>& known) {
  std::vector<ServiceSpec> services;
  for (ServiceSpec service : known) {
    const nlohmann::json& left = JsonField(exchange->services, service.name.c_str());
    if (left.empty()) continue;
    service.argv = cachecore::JsonStrings(left, "argv");
    service.uid = static_cast<uid_t>(JsonInt(left, "uid"));
    service.watchdog = std::chrono::milliseconds(JsonInt(left, "watchdog_ms"));
    service.keep_spare = JsonBool(left, "keep_spare");
    for (const auto& [number, name] : JsonField(left, "stored").items()) {
      const int fd = std::atoi(number.c_str());
      if (!name.is_string() || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) continue;
      service.stored_fds.emplace_back(name.get<std::string>(), fd);
      exchange->fds.push_back(fd);
    }
    services.push_back(std::move(service));
  }
  return services;
}

// Beside the mounts nothing lasts: what is in the cache is kept.
void SayWhatStops(const Instance& instance, int signal) {
  const Result<std::vector<MountRecord>> mounts = AskedMounts(instance);
  if (!mounts.ok() || mounts->empty()) return;
  std::string list;
  for (const MountRecord& mount : *mounts) list += " " + mount.mount_point;
  std::cerr << "holdfast: signal " << signal << " (" << sigdescr_np(signal)
            << ") ends the daemons of instance " << instance.name()
            << ", and nothing serves its mounts any more; reads of them fail, the cache is kept; "
               "take them away: holdfast umount"
            << instance.RootFlag() << " --force MOUNTPOINT:" << list << std::endl;
}

// What a supervisor that goes on in its place is to be given, too.
std::vector<std::string> FlagsOf(const SuperviseOptions& given) {
  std::vector<std::string> flags;
  for (const auto& [flag, value] : {std::pair(kFetcherUserFlag, &given.fetcher_user),
                                    std::pair(kMetricsListenFlag, &given.metrics_listen),
                                    std::pair(kDeviceFlag, &given.cachefiles_device)}) {
    if (!value->empty()) flags.push_back(std::string(flag) + "=" + *value);
  }
  if (!given.keep_standby) flags.emplace_back(kNoStandbyFlag);
  return flags;
}

Result<int> Supervise(const Instance& instance, const SuperviseOptions& given) {
  Exchange exchange = TakeExchange();
  ASSIGN_OR_RETURN(const UniqueFd environment, TakeSecrets());
  RETURN_IF_ERROR(cachecore::RaiseProcessLimits());  // The daemons get what it has.
  RETURN_IF_ERROR(RequireMountRights("supervising an instance"));
  // What it inherited listens.
  if (!exchange.is_one && IsRunElsewhere(instance)) {
    return Status(EBUSY, "instance " + instance.name() +
                             " runs and was not started by holdfast; stop it where it was started "
                             "(for systemd: systemctl stop " +
                             DaemonUnit(instance) + ")");
  }
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.RunDir(), 0700));
  RETURN_IF_ERROR(MakePrivateDirectory(instance.RunDir()));  // An earlier version's was open.
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.StateDir(), kInstanceDirMode));
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.LogDir(), 0750));
  RETURN_IF_ERROR(MakePrivateDirectory(instance.SourcesDir()));
  ASSIGN_OR_RETURN(SupervisorPidFile held, SupervisorPidFile::Hold(instance));
  // Never closed: to others the supervisor runs until its process is gone.
  const SupervisorPidFile& pid_file = *new SupervisorPidFile(std::move(held));
  ASSIGN_OR_RETURN(SupervisorOptions options,
                   ServicesOf(instance, environment, given, exchange.is_one));
  const char* const why_no_standby = WhyNoStandby(given);
  options.keep_standby = why_no_standby == nullptr;
  if (!options.keep_standby) options.why_no_standby = why_no_standby;
  if (exchange.is_one) options.services = GoOnWith(&exchange, options.services);
  options.on_exchange = [&options](const std::vector<StoredBy>& stored) {
    return RunNewProgram(options.services, stored);
  };
  options.on_stop = [&instance](int signal) { SayWhatStops(instance, signal); };
  options.standby = {.on_wait = [&pid_file] { pid_file.HoldAsStandby(); },
                     .on_take_over = [&pid_file] { pid_file.TakeOver(); }};
  options.on_start = [&] {
    if (!exchange.is_one && ServicePid(instance, kDaemon) == 0) DetachLostMounts(instance);
    for (const int fd : std::exchange(exchange.fds, {})) close(fd);  // It has copies.
    const Status kept = KeepSuperviseFlags(instance, FlagsOf(given));
    if (!kept.ok()) std::cerr << "holdfast supervise: " << kept.message() << std::endl;
  };
  const Result<int> code = RunSupervisor(options);
  // Nothing has its descriptors any more.
  DetachLostDevice(instance, given.cachefiles_device);
  return code;
}

int RunSupervise(const SuperviseOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<int> code = Supervise(*instance, options);
  return code.ok() ? *code : Fail(code.status());
}

}  // namespace

void AddSupervise(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<SuperviseOptions>();
  options->instance.AddTo(app);
  app->add_option(kFetcherUserFlag, options->fetcher_user,
                  "Run the fetcher as this user (default: holdfast-fetcher, else nobody)")
      ->type_name("USER");
  app->add_option(kMetricsListenFlag, options->metrics_listen,
                  "Serve the metrics on this port of 127.0.0.1 or [::1], too")
      ->type_name("ADDRESS:PORT");
  app->add_option(kDeviceFlag, options->cachefiles_device,
                  "Serve programs of /dev/cachefiles by a device at this path, without a fetcher")
      ->type_name("PATH");
  app->add_flag(std::string(kNoStandbyFlag) + "{false}", options->keep_standby,
                "Keep no process that goes on when this one is killed");
  app->add_flag(
      "--can-exchange", options->can_exchange,
      "Do nothing; exit code 0 says that a supervisor may exchange its program for this one");
  app->callback([options, exit_code] {
    *exit_code = options->can_exchange ? kExitOk : RunSupervise(*options);
  });
}

}  // namespace cli
