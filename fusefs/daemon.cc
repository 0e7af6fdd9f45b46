#include "fusefs/daemon.h"

#include <glog/logging.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/store/boot_id.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/rocksdb_metadata_store.h"
#include "cachecore/system/unix_listener.h"
#include "fusefs/server/fuse_mount.h"

namespace fusefs {

using cachecore::ListenUnix;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr char kFuseName[] = "fuse";
// Root's alone; the fetcher is given its socket by a process of root.
constexpr mode_t kRunDirMode = 0700;
// What an older version or systemd may have given to other users.  Passing through is left to the operator: a fetcher
// that another user starts by hand needs that.
constexpr mode_t kOthersMayLookOrWrite = 066;
constexpr char kRequestsName[] = "fuse.requests";

// Small: each life of the daemon takes one, and programs get ids modulo 4 Mi.
constexpr uint64_t kCachefilesIdBlock = 4096;

// At least so many objects are kept in memory, each with a descriptor.
constexpr size_t kMinObjects = 64;

size_t DescriptorLimit() {
  rlimit limit = {};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

Status MakeDirectory(const std::string& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) == 0 || errno == EEXIST) return Status();
  return Status::FromErrno(errno, "making the directory " + path);
}

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::Start(const DaemonConfig& config, FdStore stored) {
  std::unique_ptr<Daemon> daemon(new Daemon(config, std::move(stored)));
  const Status opened = daemon->Open();
  if (opened.ok()) return daemon;
  // Its thread uses the cache, which is torn down before it.
  if (daemon->cachefiles_ != nullptr) {
    daemon->cachefiles_->Stop(/*goes_on=*/daemon->cachefiles_->is_resumed());
  }
  return opened;
}

Status Daemon::Open() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signals_ = UniqueFd(signalfd(-1, &set, SFD_CLOEXEC));
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!signals_.valid() || !stop_.valid()) return Status::FromErrno(errno, "signalfd, eventfd");

  RETURN_IF_ERROR(CheckCacheIsThere());
  RETURN_IF_ERROR(MakeDirectory(config_.cache_dir, 0700));
  RETURN_IF_ERROR(MakeDirectory(config_.run_dir, kRunDirMode));
  struct stat run_dir;
  if (stat(config_.run_dir.c_str(), &run_dir) != 0 ||
      chmod(config_.run_dir.c_str(), run_dir.st_mode & 07777 & ~kOthersMayLookOrWrite) != 0) {
    LOG(WARNING) << Status::FromErrno(errno, "closing " + config_.run_dir).message();
  }
  RETURN_IF_ERROR(OpenCache());
  UniqueFd fuse = TakeFuse();
  const bool resumed = fuse.valid();
  RETURN_IF_ERROR(OpenUses(resumed));
  // Before the tree is mounted: a device that cannot be had leaves no mount.
  if (cachefiles_ != nullptr) {
    RETURN_IF_ERROR(cachefiles_->Start(cache_.get(), grants_.get(), [this] { mounted_->Sweep(); }));
  }
  if (!resumed) {
    ASSIGN_OR_RETURN(fuse, MakeFuse());
  }
  housekeeper_ = std::make_unique<Housekeeper>(config_.housekeeper, cache_.get(), grants_.get(),
                                               mounted_.get(), limits_.get(), totals_.get());
  ASSIGN_OR_RETURN(std::unique_ptr<RequestLog> requests, ObtainRequestLog(resumed));
  fuse_ = std::make_unique<FuseServer>(FuseOptions(), config_.run_dir + "/fuse.init",
                                       std::move(requests), cache_.get(), grants_.get());
  RETURN_IF_ERROR(fuse_->Start(std::move(fuse), resumed));
  if (!resumed) RaiseKernelReadAhead(config_.fuse_dir, config_.kernel_read_ahead_kb);
  if (fuse_->is_refused()) {
    (void)Unmount();
    return Status(EIO, "what the kernel says of a new mount cannot be saved in " + config_.run_dir +
                           ", so that it would be lost at the next restart");
  }

  std::function<nlohmann::json()> describe_cachefiles;
  std::function<Status(const GrantName&)> admit;
  std::function<void(const GrantName&)> admitted;
  if (cachefiles_ != nullptr) {
    describe_cachefiles = [this] { return cachefiles_->Describe(); };
    admit = [this](const GrantName& name) { return cachefiles_->directory().Admit(name); };
    admitted = [this](const GrantName& name) { cachefiles_->directory().Admitted(name); };
  }
  const auto stop = [this] {
    const uint64_t one = 1;
    PCHECK(write(stop_.get(), &one, sizeof(one)) == sizeof(one));
  };
  // One fetcher at a time: a kernel-style device is in the place of the socket.
  device_->Start(cache_.get(), /*refuses=*/cachefiles_ != nullptr);
  operations_ = std::make_unique<ControlOps>(
      ControlOps::Parts{cache_.get(), device_.get(), fuse_.get(), grants_.get(), config_.fuse_dir,
                        config_.cache.fail_on_detach, stop, [this] { return limits_->Describe(); },
                        mounted_.get(), describe_cachefiles, admit, admitted, totals_->totals()});
  control_->Start(
      [this](const std::string& line, int peer) { return operations_->Handle(line, peer); });
  unmount_watch_ = std::thread([this, stop] {
    fuse_->WaitForUnmount();
    stop();
  });
  return Status();
}

FuseServerOptions Daemon::FuseOptions() const {
  FuseServerOptions options = config_.fuse;
  options.totals = totals_->totals();
  return options;
}

Status Daemon::OpenUses(bool resumed) {
  ASSIGN_OR_RETURN(
      grants_, Grants::Open(config_.run_dir + "/grants", cachecore::Clock::Monotonic(), resumed));
  const auto is_granted = [this](const std::string& volume, const std::string& object) {
    return grants_->Has({volume, object});
  };
  limits_ = std::make_unique<CacheLimits>(config_.limits, cachecore::Clock::Monotonic(),
                                          cache_.get(), is_granted);
  if (!resumed) limits_->AwaitMounts();
  if (cachefiles_ == nullptr) return Status();
  // What is mounted by `fsid`, so that its client gets the CLOSE.
  mounted_ = std::make_unique<MountedObjects>(
      config_.run_dir + "/mounted", cachecore::Clock::Monotonic(), resumed,
      [this](const GrantName& name) { grants_->Release(name); },
      [this](const GrantName& name) {
        if (grants_->Has(name)) return true;  // It is used again.
        if (!cache_->Close(name.volume, name.object)) return false;
        cachefiles_->directory().Commit(name);
        return true;
      });
  return Status();
}

// And the sockets, whose device the cache wakes.
Status Daemon::OpenCache() {
  std::string boot_id = config_.boot_id;
  if (boot_id.empty()) {
    ASSIGN_OR_RETURN(boot_id, cachecore::ReadBootId(config_.cache_dir));
  }
  // The database's lock comes first: a second daemon on this cache gets no further, and touches
  // nothing.
  ASSIGN_OR_RETURN(std::unique_ptr<cachecore::MetadataStore> store,
                   cachecore::OpenRocksDbMetadataStore(config_.cache_dir + "/db", boot_id));
  ASSIGN_OR_RETURN(cachecore::DataStore data,
                   cachecore::DataStore::Open(config_.cache_dir + "/data"));
  ASSIGN_OR_RETURN(UniqueFd device,
                   ObtainListener("device.sock", SOCK_SEQPACKET, config_.fetcher_uid));
  ASSIGN_OR_RETURN(device_, DeviceServer::Make(std::move(device), config_.fetcher_uid));
  ASSIGN_OR_RETURN(UniqueFd control, ObtainListener("control.sock", SOCK_STREAM, geteuid()));
  ASSIGN_OR_RETURN(control_, ControlServer::Make(std::move(control)));
  cachecore::FaultPoint(cachecore::Fault::kListening);
  totals_ = std::make_unique<KeptTotals>(config_.cache_dir, &fd_store_);
  cachecore::CacheOptions options = config_.cache;
  options.totals = totals_->totals();
  options.max_objects = std::clamp(DescriptorLimit() / 4, kMinObjects, options.max_objects);
  if (!config_.cachefiles_device.empty()) {
    options.msg_id_block = kCachefilesIdBlock;
    cachefiles_ = std::make_unique<CachefilesServer>(
        config_.cachefiles_device, config_.run_dir, &fd_store_,
        config_.fault_file.empty() ? "" : config_.fault_file + ".injectd");
  } else {
    CachefilesSession::ForgetStored(&fd_store_);
    DevicePlace::EndEarlier(config_.run_dir);
  }
  const auto wake = [device = device_.get(), cachefiles = cachefiles_.get()] {
    cachefiles != nullptr ? cachefiles->Wake() : device->Wake();
  };
  ASSIGN_OR_RETURN(cache_, cachecore::Cache::Open(options, cachecore::Clock::Monotonic(),
                                                  std::move(store), std::move(data), wake));
  return Status();
}

// A mount that goes on would find other objects, or none, under the numbers that the kernel knows.
Status Daemon::CheckCacheIsThere() const {
  pollfd probe = {fd_store_.Find(kFuseName), POLLIN, 0};
  const bool resumes = probe.fd >= 0 && poll(&probe, 1, 0) >= 0 && (probe.revents & POLLERR) == 0;
  if (!resumes) return Status();
  const std::string database = config_.cache_dir + "/db";
  std::error_code error;
  const bool is_empty = std::filesystem::is_empty(database, error);
  // What cannot be read now is there all the same.
  if (error ? error != std::errc::no_such_file_or_directory : !is_empty) return Status();
  return Status(ENOENT, "the cache of a living mount is not in " + config_.cache_dir +
                            ": mount the file system that holds it; to start with an empty cache, "
                            "end the mounts first (holdfast umount --force)");
}

Result<UniqueFd> Daemon::ObtainListener(const std::string& name, int type, uid_t uid) {
  const std::string path = config_.run_dir + "/" + name;
  UniqueFd listener = fd_store_.Take(name);
  // A listener whose path was removed can't be reached.
  if (listener.valid() && access(path.c_str(), F_OK) == 0) return listener;
  if (listener.valid()) fd_store_.Remove(name);
  ASSIGN_OR_RETURN(listener, ListenUnix(path, type, uid));
  if (fd_store_.available()) RETURN_IF_ERROR(fd_store_.Store(name, listener.get()));
  return listener;
}

UniqueFd Daemon::TakeFuse() {
  UniqueFd fuse = fd_store_.Take(kFuseName);
  if (!fuse.valid()) return fuse;
  // POLLERR: it was unmounted, or never mounted.
  pollfd probe = {fuse.get(), POLLIN, 0};
  if (poll(&probe, 1, 0) < 0 || (probe.revents & POLLERR) != 0) {
    fd_store_.Remove(kFuseName);
    return UniqueFd();
  }
  LOG(INFO) << "going on with the FUSE connection of the last daemon";
  stored_ = true;
  return fuse;
}

Result<UniqueFd> Daemon::MakeFuse() {
  RETURN_IF_ERROR(FuseConnection(config_.run_dir + "/fuse.init", nullptr, true).Reset());
  RETURN_IF_ERROR(DetachDeadMount(config_.fuse_dir));
  ASSIGN_OR_RETURN(UniqueFd fuse, OpenFuse());
  // Stored before it is mounted: from the first moment that the kernel could ask us for something.
  if (fd_store_.available()) {
    RETURN_IF_ERROR(fd_store_.Store(kFuseName, fuse.get()));
    stored_ = true;
  }
  cachecore::FaultPoint(cachecore::Fault::kFuseStored);
  RETURN_IF_ERROR(MountFuse(config_.fuse_dir, fuse.get()));
  cachecore::FaultPoint(cachecore::Fault::kFuseMounted);
  return fuse;
}

Result<std::unique_ptr<RequestLog>> Daemon::ObtainRequestLog(bool resumed) {
  UniqueFd memory = fd_store_.Take(kRequestsName);
  if (memory.valid() && resumed) {
    Result<std::unique_ptr<RequestLog>> log = RequestLog::Open(std::move(memory));
    if (log.ok()) return log;
    LOG(ERROR) << log.status().message();
  }
  fd_store_.Remove(kRequestsName);
  ASSIGN_OR_RETURN(std::unique_ptr<RequestLog> log, RequestLog::Open(UniqueFd()));
  if (fd_store_.available()) RETURN_IF_ERROR(fd_store_.Store(kRequestsName, log->memory()));
  cachecore::FaultPoint(cachecore::Fault::kRequestLogStored);
  return log;
}

std::unique_ptr<Watchdog> Daemon::StartWatchdog() {
  uint64_t usec = 0;
  if (sd_watchdog_enabled(/*unset_environment=*/0, &usec) <= 0) return nullptr;
  const std::chrono::microseconds limit(usec);
  Health health(limit, cachecore::Clock::Monotonic());
  for (const WorkMark& mark : fuse_->marks()) health.Watch("a FUSE thread", &mark);
  health.Watch("the device thread", &device_->mark());
  if (cachefiles_ != nullptr) health.Watch("the cachefiles thread", &cachefiles_->mark());
  health.WatchTicks("the housekeeper", &housekeeper_->ticks());
  return std::make_unique<Watchdog>(
      std::move(health), limit / 2, [this] { (void)cache_->generation(); },
      [] { sd_notify(0, "WATCHDOG=1"); });
}

int Daemon::Unmount() {
  const Status unmounted = UnmountFuse(config_.fuse_dir);
  cachecore::FaultPoint(cachecore::Fault::kUnmounted);
  if (stored_) {
    fd_store_.Remove(kFuseName);
    fd_store_.Remove(kRequestsName);
  }
  cachecore::FaultPoint(cachecore::Fault::kStoreEmptied);
  if (unmounted.ok()) return 0;
  LOG(ERROR) << unmounted.message() << "; what is mounted on top of it will fail";
  umount2(config_.fuse_dir.c_str(), MNT_DETACH);
  return 1;
}

int Daemon::Run() {
  LOG(INFO) << "serving " << config_.fuse_dir << " from " << config_.cache_dir;
  fd_store_.SayReady();
  std::unique_ptr<Watchdog> watchdog = StartWatchdog();
  pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  while (poll(fds, 2, -1) < 0) PCHECK(errno == EINTR);
  sd_notify(0, "STOPPING=1");
  watchdog.reset();
  // A signal asks this process to end, and ends the mount only if no other process can take it
  // over.
  const bool keep_mount = stored_ && fds[1].revents == 0;
  // The last sync is made while the daemon still serves, so that no read waits for it.
  if (keep_mount) housekeeper_.reset();
  operations_->Cancel();
  control_->Stop();
  LOG(INFO) << (keep_mount ? "stopping; the mount waits for the next daemon" : "stopping");
  const int exit_code = keep_mount ? 0 : Unmount();
  fuse_->Stop();
  unmount_watch_.join();
  device_->Stop();
  if (cachefiles_ != nullptr) cachefiles_->Stop(/*goes_on=*/keep_mount);
  if (!keep_mount) {
    for (const char* name : {"device.sock", "control.sock"}) {
      unlink((config_.run_dir + "/" + name).c_str());
      fd_store_.Remove(name);
    }
  }
  housekeeper_.reset();  // Syncs.
  return exit_code;
}

}  // namespace fusefs
