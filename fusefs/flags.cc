#include "fusefs/flags.h"

#include <gflags/gflags.h>
#include <pwd.h>

#include <bit>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <limits>
#include <string>
#include <system_error>

#include "cachecore/base/parse_text.h"
#include "cachecore/system/files.h"

DEFINE_string(cache_dir, "", "directory of the cache: metadata in db/, data in data/ (required)");
DEFINE_string(run_dir, "", "directory of device.sock and control.sock (required)");
DEFINE_string(fuse_dir, "", "where the tree is mounted; by default RUN_DIR/fuse");
DEFINE_string(detach_policy, "hold",
              "what reads do when the fetcher is gone: hold (wait for the next) or fail (EIO)");
DEFINE_string(
    on_full, "wait",
    "what a read of missing bytes does while the cache's disk is full: wait (for room), or "
    "through (be served without the bytes being kept)");
DEFINE_string(request_timeout, "0", "how long a read may wait before EIO, as 5s; 0 waits for ever");
DEFINE_string(fetch_size, "64K", "smallest fetch, and its alignment: a power of two from 4K to 4M");
DEFINE_string(readahead_max, "64M",
              "how far to fetch ahead of a sequential reader; 0 is not at all");
DEFINE_bool(fetch_exact, false,
            "ask for the very ranges that are read and missing, as the kernel's mode does");
DEFINE_string(cachefiles_device, "",
              "file on which the kernel's on-demand device is mounted, for programs that use "
              "/dev/cachefiles; it takes the place of the fetcher");
DEFINE_string(cache_max, "",
              "how large the cache may become, as 20G or 80% of its file system, the default; 0 is "
              "no limit");
DEFINE_string(cache_min_free, "",
              "how much of its file system the cache leaves to others, as 1G or 5%, the default at "
              "the cost of what no mount shows; 0 is nothing");
DEFINE_string(sync_interval, "5s", "how often what was fetched is made durable");
DEFINE_string(sync_bytes, "256M", "make it durable earlier when this much waits");
DEFINE_int32(fuse_threads, 4, "threads that read requests from the kernel");
DEFINE_bool(fuse_resend, true,
            "ask the kernel to send again what a dead daemon had taken; off: do as on a kernel "
            "before 6.9, which cannot (for tests)");
DEFINE_int32(kernel_readahead_kb, 2048, "read-ahead of the kernel on our mount");
DEFINE_string(fetcher_uid, "0",
              "user, number or name, that may attach as fetcher, beside root and our own");
DEFINE_bool(check_flags, false, "say what is wrong with the flags, and end; touches nothing");
DEFINE_bool(check_state, false,
            "say whether this program could take over what a running one has in --cache-dir and "
            "--run-dir, and end; touches nothing");
DEFINE_int32(check_pid, 0,
             "with --check-state: the daemon that runs; look at what it has in memory, too");
DEFINE_string(fault_file, "",
              "file that arms a fault point once: NAME N exit|block|error (for tests)");
DEFINE_bool(list_fault_points, false, "print the names of the fault points and exit (for tests)");
DEFINE_string(boot_id, "", "take this for the machine's boot id (for tests of power cuts)");

namespace fusefs {

using cachecore::Result;
using cachecore::Status;

namespace {

Result<uid_t> ParseUser(const std::string& text) {
  uid_t uid = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, uid);
  if (error == std::errc() && stopped == end) return uid;
  if (const passwd* user = getpwnam(text.c_str())) return user->pw_uid;
  return Status(EINVAL, "--fetcher-uid: there is no user \"" + text + "\"");
}

// Its programs are used to the kernel's ranges and to what the kernel does when they end.
Status SetCachefilesDevice(DaemonConfig* config) {
  const std::filesystem::path device = FLAGS_cachefiles_device;
  const std::string flag = "--cachefiles-device=" + FLAGS_cachefiles_device;
  if (!device.is_absolute()) return Status(EINVAL, flag + " must be an absolute path");
  // What is mounted there later would hide it.
  std::error_code error;
  const std::filesystem::path tree = std::filesystem::absolute(config->fuse_dir, error);
  if ((device.lexically_normal().string() + "/")
          .starts_with(tree.lexically_normal().string() + "/")) {
    return Status(EINVAL, flag + " is in the directory of the instance's own mount, " +
                              config->fuse_dir + "; give the device a path outside it");
  }
  config->cachefiles_device = FLAGS_cachefiles_device;
  config->cache.engine.exact = true;
  config->cache.engine.kernel_instances = true;
  config->cache.fail_on_detach = true;
  config->limits.applies = false;  // Its program culls.
  config->cache.engine.notes_uses = false;
  return Status();
}

// Of a limit that is not given, the default.
Result<cachecore::SizeOrPercent> Limit(const char* flag, const std::string& text,
                                       const char* by_default) {
  Result<cachecore::SizeOrPercent> limit =
      cachecore::ParseSizeOrPercent(text.empty() ? by_default : text);
  if (!limit.ok()) return Status(limit.status()).WithContext(flag);
  return limit;
}

Status SetLimits(CacheLimitOptions* limits) {
  limits->max_by_default = FLAGS_cache_max.empty();
  limits->min_free_by_default = FLAGS_cache_min_free.empty();
  ASSIGN_OR_RETURN(limits->max, Limit("--cache-max", FLAGS_cache_max, "80%"));
  ASSIGN_OR_RETURN(limits->min_free, Limit("--cache-min-free", FLAGS_cache_min_free, "5%"));
  return Status();
}

}  // namespace

bool IsFlagCheckAsked() { return FLAGS_check_flags; }

bool IsStateCheckAsked() { return FLAGS_check_state; }

pid_t RunningDaemon() { return FLAGS_check_pid; }

Result<DaemonConfig> ConfigFromFlags() {
  DaemonConfig config;
  if (FLAGS_cache_dir.empty()) return Status(EINVAL, "--cache-dir is required");
  if (cachecore::IsRootDirectory(FLAGS_cache_dir)) {
    return Status(EINVAL, "--cache-dir=" + FLAGS_cache_dir +
                              " is the root directory; give the cache a directory of its own");
  }
  if (FLAGS_run_dir.empty()) return Status(EINVAL, "--run-dir is required");
  config.cache_dir = FLAGS_cache_dir;
  config.run_dir = FLAGS_run_dir;
  config.fuse_dir = FLAGS_fuse_dir.empty() ? FLAGS_run_dir + "/fuse" : FLAGS_fuse_dir;
  config.boot_id = FLAGS_boot_id;
  config.fault_file = FLAGS_fault_file;
  ASSIGN_OR_RETURN(config.fetcher_uid, ParseUser(FLAGS_fetcher_uid));
  config.kernel_read_ahead_kb = FLAGS_kernel_readahead_kb;
  if (FLAGS_detach_policy != "hold" && FLAGS_detach_policy != "fail") {
    return Status(EINVAL, "--detach-policy is hold or fail, not \"" + FLAGS_detach_policy + "\"");
  }
  config.cache.fail_on_detach = FLAGS_detach_policy == "fail";
  if (FLAGS_on_full != "wait" && FLAGS_on_full != "through") {
    return Status(EINVAL, "--on-full is wait or through, not \"" + FLAGS_on_full + "\"");
  }
  config.cache.serve_through = FLAGS_on_full == "through";
  const auto named = [](const char* flag, Status status) {
    return std::move(status).WithContext(std::string("--") + flag);
  };
  const Result<cachecore::Duration> timeout = cachecore::ParseDuration(FLAGS_request_timeout);
  if (!timeout.ok()) return named("request-timeout", timeout.status());
  config.cache.request_timeout = *timeout;
  const Result<cachecore::Duration> interval = cachecore::ParseDuration(FLAGS_sync_interval);
  if (!interval.ok()) return named("sync-interval", interval.status());
  config.housekeeper.sync_interval = *interval;
  const Result<uint64_t> sync_bytes = cachecore::ParseSize(FLAGS_sync_bytes);
  if (!sync_bytes.ok()) return named("sync-bytes", sync_bytes.status());
  config.housekeeper.sync_bytes = *sync_bytes;
  RETURN_IF_ERROR(SetLimits(&config.limits));
  config.cache.engine.notes_uses = true;  // A limit may be chosen, or the disk be full, later.
  const Result<uint64_t> fetch = cachecore::ParseSize(FLAGS_fetch_size);
  if (!fetch.ok()) return named("fetch-size", fetch.status());
  if (!std::has_single_bit(*fetch) || *fetch < 4096 || *fetch > (4u << 20)) {
    return Status(EINVAL, "--fetch-size is a power of two from 4K to 4M");
  }
  config.cache.engine.fetch_size = *fetch;
  const Result<uint64_t> ahead = cachecore::ParseSize(FLAGS_readahead_max);
  if (!ahead.ok()) return named("readahead-max", ahead.status());
  if (*ahead != 0 && *ahead < *fetch) {
    return Status(EINVAL, "--readahead-max is 0 or at least --fetch-size");
  }
  config.cache.engine.read_ahead_max = *ahead;
  config.cache.engine.exact = FLAGS_fetch_exact;
  if (!FLAGS_cachefiles_device.empty()) RETURN_IF_ERROR(SetCachefilesDevice(&config));
  if (FLAGS_fuse_threads < 1 || FLAGS_fuse_threads > 64) {
    return Status(EINVAL, "--fuse-threads is from 1 to 64");
  }
  config.fuse.threads = FLAGS_fuse_threads;
  config.fuse.may_resend = FLAGS_fuse_resend;
  return config;
}

}  // namespace fusefs
