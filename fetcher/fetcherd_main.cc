// holdfast-fetcherd: flags to FetcherOptions, signals to a descriptor; the rest is Fetcher.

#include <fcntl.h>
#include <gflags/gflags.h>
#include <glog/logging.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cachecore/base/fault_point.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/environment/descriptor_table.h"
#include "cachecore/environment/log_reopening.h"
#include "cachecore/environment/secret_environment.h"
#include "cachecore/logging/journal_log.h"
#include "cachecore/system/process_limits.h"
#include "cachecore/system/program_help.h"
#include "fetcher/engine/fetcher.h"
#include "fetcher/source/file_broker.h"
#include "fetcher/source/local_files.h"

DEFINE_string(device, "", "holdfastd's device socket (required)");
DEFINE_string(sources_dir, "", "directory of the VOLUME.json files (required)");
DEFINE_string(user, "",
              "user to run as, by name or number; a process that stays root opens for it what the "
              "sources name and it can't read");
DEFINE_uint32(connections, 16,
              "most transfers at once per origin; of those, as many as make it faster");
DEFINE_string(max_range, "16M", "largest range of one request");
DEFINE_string(retry_budget, "0", "give a read up when it has failed for so long; 0 is never");
DEFINE_string(confirm_change, "4s",
              "believe that an object has changed when an origin has said so for so long");
DEFINE_string(open_retry_budget, "0", "the same for the first OPEN of an object");
DEFINE_string(low_speed_limit, "1K",
              "a transfer whose bytes flow at less a second has stalled; 0: never ...");
DEFINE_string(low_speed_time, "10s", "... if it goes on for so long");
DEFINE_string(
    connect_timeout, "10s",
    "give a connection up that takes longer; each further try gets twice as long, up to 5m");
DEFINE_string(first_byte_timeout, "10s",
              "the same for an answer's first byte, from when the request was sent");
DEFINE_int32(max_redirects, 5, "redirects followed per request");
DEFINE_uint32(credits, 256, "messages that the daemon may send ahead, at most 4096");
DEFINE_bool(check_flags, false, "say what is wrong with the flags, and end; touches nothing");
DEFINE_string(fault_file, "",
              "file that arms a fault point once: NAME N exit|block|error (for tests)");
DEFINE_bool(list_fault_points, false, "print the names of the fault points and exit (for tests)");
DEFINE_bool(keep_connection, true,
            "leave the connection with the service manager, for the fetcher after this one");

namespace {

using cachecore::DescriptorTable;
using cachecore::ParseDuration;
using cachecore::ParseSize;
using cachecore::SecretEnvironment;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr char kKeptName[] = "device";

int Usage(const Status& status) {
  std::fprintf(stderr, "holdfast-fetcherd: %s\n", status.message().c_str());
  return 2;
}

template <typename T>
Status Take(const char* flag, cachecore::Result<T> value, T* option) {
  if (!value.ok()) return std::move(value).status().WithContext(flag);
  *option = std::move(value).value();
  return Status();
}

Status ReadFlags(fetcher::FetcherOptions* options) {
  if (FLAGS_device.empty()) return Status(EINVAL, "--device is missing");
  if (FLAGS_sources_dir.empty()) return Status(EINVAL, "--sources-dir is missing");
  if (FLAGS_connections < 1 || FLAGS_connections > 64) {
    return Status(EINVAL, "--connections is not 1 to 64");
  }
  if (FLAGS_credits < 1 || FLAGS_credits > cachecore::wire::kMaxCredits) {
    return Status(EINVAL, "--credits is not 1 to 4096");
  }
  if (FLAGS_max_redirects < 0) return Status(EINVAL, "--max-redirects is negative");
  options->device = FLAGS_device;
  options->sources_dir = FLAGS_sources_dir;
  options->connections = FLAGS_connections;
  options->credits = FLAGS_credits;
  options->http.max_redirects = FLAGS_max_redirects;
  RETURN_IF_ERROR(Take("--max-range", ParseSize(FLAGS_max_range), &options->fetch.max_range));
  if (options->fetch.max_range < 4096) return Status(EINVAL, "--max-range is below 4096");
  RETURN_IF_ERROR(
      Take("--retry-budget", ParseDuration(FLAGS_retry_budget), &options->fetch.retry_budget));
  RETURN_IF_ERROR(Take("--confirm-change", ParseDuration(FLAGS_confirm_change),
                       &options->fetch.confirm_change));
  RETURN_IF_ERROR(Take("--open-retry-budget", ParseDuration(FLAGS_open_retry_budget),
                       &options->fetch.open_retry_budget));
  RETURN_IF_ERROR(
      Take("--low-speed-limit", ParseSize(FLAGS_low_speed_limit), &options->http.low_speed_limit));
  RETURN_IF_ERROR(
      Take("--low-speed-time", ParseDuration(FLAGS_low_speed_time), &options->http.low_speed_time));
  RETURN_IF_ERROR(Take("--connect-timeout", ParseDuration(FLAGS_connect_timeout),
                       &options->http.connect_timeout));
  RETURN_IF_ERROR(Take("--first-byte-timeout", ParseDuration(FLAGS_first_byte_timeout),
                       &options->http.first_byte_timeout));
  for (const auto time : {options->http.connect_timeout, options->http.first_byte_timeout}) {
    if (time < std::chrono::milliseconds(1)) {
      return Status(EINVAL, "--connect-timeout and --first-byte-timeout are at least 1ms");
    }
  }
  return Status();
}

// What the service manager has for us: the connection that the fetcher before us left there, if it
// still has a daemon, and the environment's secrets.
struct Inheritance {
  UniqueFd connection;
  UniqueFd environment;
};

// The table lists what the service manager has of us; null without one.
Inheritance TakeInheritance(std::unique_ptr<DescriptorTable>* table) {
  Inheritance kept;
  std::vector<DescriptorTable::Stored> stored;
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  for (int i = 0; i < count; ++i) {
    UniqueFd fd(SD_LISTEN_FDS_START + i);
    const std::string name = names != nullptr ? names[i] : "";
    if (names != nullptr) std::free(names[i]);
    pollfd peer = {fd.get(), 0, 0};
    if (name == kKeptName && poll(&peer, 1, 0) == 0) {
      kept.connection = std::move(fd);
      stored.push_back({.name = name, .fd = kept.connection.get(), .is_polled = true});
    } else if (name == SecretEnvironment::kStoredName) {
      kept.environment = std::move(fd);
      stored.push_back({.name = name, .fd = kept.environment.get()});
    }
  }
  std::free(names);
  if (std::getenv("NOTIFY_SOCKET") == nullptr) return kept;
  auto made = DescriptorTable::Create(stored);
  LOG_IF(ERROR, !made.ok()) << made.status().message();
  if (made.ok()) *table = std::move(made).value();
  return kept;
}

// A supervisor's, or our own.
Status TakeSecrets(const UniqueFd& stored, fetcher::FetcherOptions* options) {
  SecretEnvironment environment = SecretEnvironment::Take();
  if (stored.valid()) {
    ASSIGN_OR_RETURN(environment, SecretEnvironment::Load(stored.get()));
  }
  environment.SetProxies();
  options->environment = std::make_shared<const SecretEnvironment>(std::move(environment));
  return Status();
}

// The supervisor polls a kept connection, and closes it when the daemon has closed its end.
void KeepConnection(int connection, DescriptorTable* table) {
  if (table != nullptr) {
    table->Remove(kKeptName);
    const Status put = table->Put({.name = kKeptName, .fd = connection, .is_polled = true});
    LOG_IF(ERROR, !put.ok()) << put.message();
  }
  sd_notify(0, (std::string("FDSTOREREMOVE=1\nFDNAME=") + kKeptName).c_str());
  sd_pid_notify_with_fds(0, 0, (std::string("FDSTORE=1\nFDNAME=") + kKeptName).c_str(), &connection,
                         1);
  cachecore::FaultPoint(cachecore::Fault::kConnectionStored);
}

// The service manager's socket may be where only root gets: it is reached by a descriptor from now
// on.  By that of its directory where others may look names up there: the next manager binds another
// socket of that name.
void KeepNotifySocket() {
  const char* const variable = std::getenv("NOTIFY_SOCKET");
  if (variable == nullptr || variable[0] != '/') return;
  const std::string path = variable;
  const size_t slash = path.rfind('/');
  const int directory = open(path.substr(0, slash + 1).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct stat info;
  if (directory >= 0 && fstat(directory, &info) == 0 && (info.st_mode & S_IXOTH) != 0) {
    const std::string kept = "/proc/self/fd/" + std::to_string(directory) + path.substr(slash);
    setenv("NOTIFY_SOCKET", kept.c_str(), /*overwrite=*/1);
    return;
  }
  if (directory >= 0) close(directory);
  const int socket = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (socket >= 0) {
    setenv("NOTIFY_SOCKET", ("/proc/self/fd/" + std::to_string(socket)).c_str(), /*overwrite=*/1);
  }
}

// Leaves root for --user, and a broker behind that is still root.
Status ChangeUser(const std::string& log, fetcher::FetcherOptions* options) {
  fetcher::RegisteredFiles files(options->sources_dir, options->device);
  UniqueFd broker;
  if (!FLAGS_user.empty()) {
    ASSIGN_OR_RETURN(const fetcher::UserIds user, fetcher::FindUser(FLAGS_user));
    if (geteuid() != 0 && geteuid() != user.uid) {
      return Status(EPERM, "--user=" + FLAGS_user + " needs root");
    }
    if (geteuid() == 0 && user.uid != 0) {
      ASSIGN_OR_RETURN(broker, fetcher::StartBroker(files, log));
      KeepNotifySocket();
      RETURN_IF_ERROR(fetcher::BecomeUser(user));
    }
  }
  options->files = std::make_shared<fetcher::LocalFiles>(std::move(files), std::move(broker));
  prctl(PR_SET_DUMPABLE, 0);  // Origins' credentials must not end up in a core file.
  return Status();
}

fetcher::FetcherHooks ManagerHooks(DescriptorTable* table) {
  fetcher::FetcherHooks hooks;
  hooks.attached = [table](int connection, bool is_new) {
    if (is_new && FLAGS_keep_connection) KeepConnection(connection, table);
    sd_notify(/*unset_environment=*/0, "READY=1");
  };
  uint64_t usec = 0;
  if (sd_watchdog_enabled(0, &usec) <= 0) return hooks;
  // While there is no daemon to attach to we are not ready, but not hung either.
  const std::string text = "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=" + std::to_string(usec);
  hooks.alive = [text] { sd_notify(0, text.c_str()); };
  hooks.alive_interval = std::chrono::microseconds(usec) / 3;  // "About" is within a half.
  return hooks;
}

}  // namespace

int main(int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  const cachecore::JournalLog journal("holdfast-fetcherd");
  FLAGS_logtostderr = true;
  gflags::SetUsageMessage(
      "holdfast-fetcherd --device=PATH --sources-dir=DIR\n"
      "Brings what holdfastd asks for from the origins that the sources name.");
  gflags::SetVersionString(HOLDFAST_VERSION);
  gflags::ParseCommandLineNonHelpFlags(&argc, &argv, true);
  if (cachecore::PrintHelpIfAsked("fetcher/")) return 0;
  if (FLAGS_list_fault_points) {
    cachecore::ListFaultPoints(cachecore::FaultProgram::kFetcher, std::cout);
    return 0;
  }
  if (argc > 1) return Usage(Status(EINVAL, std::string("unexpected argument ") + argv[1]));
  fetcher::FetcherOptions options;
  if (const Status status = ReadFlags(&options); !status.ok()) return Usage(status);
  if (FLAGS_check_flags) return 0;
  if (const Status armed = cachecore::ArmFaultPoint(FLAGS_fault_file); !armed.ok()) {
    return Usage(armed);
  }

  if (const Status limits = cachecore::RaiseProcessLimits(); !limits.ok()) {
    LOG(ERROR) << limits.message();
    return 1;
  }
  const std::string log = cachecore::LogFilePath();
  if (const Status changed = ChangeUser(log, &options); !changed.ok()) return Usage(changed);
  // All threads have the rights of this one, which has given up root's.
  const std::shared_ptr<const fetcher::LocalFiles> files = options.files;
  cachecore::ReopenLogOnHangup(log, [files](const auto& path) { return files->OpenLog(path); });
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT}) sigaddset(&signals, signal);
  if (log.empty()) sigaddset(&signals, SIGHUP);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  const UniqueFd stop(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));

  std::unique_ptr<DescriptorTable> table;
  Inheritance kept = TakeInheritance(&table);
  if (!FLAGS_keep_connection) kept.connection.Reset();
  if (const Status taken = TakeSecrets(kept.environment, &options); !taken.ok()) {
    LOG(ERROR) << taken.message();
    return 1;
  }
  fetcher::Fetcher fetcher(options, cachecore::Clock::Monotonic(), ManagerHooks(table.get()));
  const Status ended = fetcher.Run(stop.get(), std::move(kept.connection));
  sd_notify(0, "STOPPING=1");
  if (ended.ok()) return 0;
  LOG(ERROR) << ended.message();
  return 1;
}
