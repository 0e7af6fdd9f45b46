#include <cerrno>
#include <memory>
#include <string>

#include "cachecore/process_limits.h"
#include "cachecore/secret_environment.h"
#include "cachecore/unique_fd.h"
#include "cli/command.h"
#include "cli/fetcher_user.h"
#include "cli/files.h"
#include "cli/instance_control.h"
#include "cli/process.h"
#include "cli/settings.h"
#include "cli/supervisor.h"
#include "cli/systemd_unit.h"
#include "cli/trusted_directory.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::SecretEnvironment;
using cachecore::Status;
using cachecore::UniqueFd;

// The FUSE connection, the device's listening socket and connection, and room for what comes.
constexpr size_t kDaemonFdStoreMax = 64;
// The fetcher's connection to the daemon, for a moment the next one beside it, and its environment.
constexpr size_t kFetcherFdStoreMax = 5;

// `environment`: the memory file with the fetcher's secrets, if there are any.
Result<SupervisorOptions> ServicesOf(const Instance& instance, const UniqueFd& environment,
                                     const std::string& fetcher_user) {
  Settings settings;  // Without a settings file: the default ones.
  const Result<nlohmann::json> file = ReadJsonFile(instance.SettingsFile());
  if (file.ok()) settings = Settings::FromJson(*file);
  ASSIGN_OR_RETURN(const FetcherUser user, FindFetcherUser(fetcher_user.empty()
                                                               ? settings.fetcher_user
                                                               : fetcher_user));
  ASSIGN_OR_RETURN(const std::string daemon, FindProgram(kDaemon));
  ASSIGN_OR_RETURN(const std::string fetcher, FindProgram(kFetcherProgram));

  ServiceSpec daemon_service;
  daemon_service.name = kDaemon;
  daemon_service.argv = {daemon, "--cache_dir=" + settings.CacheDirFor(instance),
                         "--run_dir=" + instance.RunDir(),
                         "--fetcher_uid=" + std::to_string(user.uid)};
  daemon_service.argv.insert(daemon_service.argv.end(), settings.daemon_flags.begin(),
                             settings.daemon_flags.end());
  daemon_service.fd_store_max = kDaemonFdStoreMax;
  daemon_service.required_ready = true;
  daemon_service.keep_spare = settings.keep_spare;

  ServiceSpec fetcher_service;
  fetcher_service.name = kFetcher;
  fetcher_service.argv = {fetcher, "--device=" + instance.DeviceSocket(),
                          "--sources_dir=" + instance.SourcesDir(), "--user=" + user.name};
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
  options.services = {daemon_service, fetcher_service};
  for (ServiceSpec& service : options.services) {
    service.log_path = instance.LogFile(service.name);
    service.pid_path = instance.PidFile(service.name);
    service.watchdog = settings.watchdog;
  }
  return options;
}

// Before anything else: the daemon's environment is a copy of ours.
Result<UniqueFd> TakeSecrets() {
  const SecretEnvironment secrets = SecretEnvironment::Take();
  if (secrets.empty()) return UniqueFd();
  return secrets.Store();
}

Result<int> Supervise(const Instance& instance, const std::string& fetcher_user) {
  ASSIGN_OR_RETURN(const UniqueFd environment, TakeSecrets());
  RETURN_IF_ERROR(cachecore::RaiseProcessLimits());  // The daemons get what it has.
  RETURN_IF_ERROR(RequireRoot("supervising an instance"));
  if (IsRunElsewhere(instance)) {
    return Status(EBUSY, "instance " + instance.name() +
                             " runs and was not started by holdfast; stop it where it was started "
                             "(for systemd: systemctl stop " +
                             DaemonUnit(instance) + ")");
  }
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.RunDir(), 0700));
  RETURN_IF_ERROR(MakePrivateDirectory(instance.RunDir()));  // An earlier version's was open.
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.LogDir(), 0750));
  RETURN_IF_ERROR(MakePrivateDirectory(instance.SourcesDir()));
  ASSIGN_OR_RETURN(const UniqueFd pid_file, HoldSupervisorPidFile(instance));
  ASSIGN_OR_RETURN(const SupervisorOptions options,
                   ServicesOf(instance, environment, fetcher_user));
  DetachLostMounts(instance);  // Their daemon is gone, or is about to be ended by its pid file.
  return RunSupervisor(options);
}

int RunSupervise(const InstanceOptions& options, const std::string& fetcher_user) {
  const Result<Instance> instance = options.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<int> code = Supervise(*instance, fetcher_user);
  return code.ok() ? *code : Fail(code.status());
}

}  // namespace

void AddSupervise(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<InstanceOptions>();
  const auto fetcher_user = std::make_shared<std::string>();
  options->AddTo(app);
  app->add_option("--fetcher-user", *fetcher_user,
                  "Run the fetcher as this user (default: holdfast-fetcher, else nobody)")
      ->type_name("USER");
  app->callback([options, fetcher_user, exit_code] {
    *exit_code = RunSupervise(*options, *fetcher_user);
  });
}

}  // namespace cli
