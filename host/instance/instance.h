// Instance: one Holdfast on this machine, named by --instance, and where its files are.
//
// Model    ROOT/var/lib/holdfast/NAME   cache/, sources/, mounts/ : kept from run to run
//          ROOT/run/holdfast/NAME       sockets, pid files, mount records, the FUSE mount : one
//          life ROOT/var/log/holdfast/NAME   a log file for each process
// Threads  immutable value.
// See      holdfast(1) FILES.

#ifndef HOST_INSTANCE_INSTANCE_H_
#define HOST_INSTANCE_INSTANCE_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace host {

class Instance {
 public:
  // EINVAL: not a name of 1 to 64 characters of A-Za-z0-9_.- ; ENAMETOOLONG: `root` is so long that
  // no Unix socket fits beneath it.
  static cachecore::Result<Instance> Make(const std::string& root, const std::string& name);
  // Every instance that has files of either kind beneath `root`, sorted.
  static std::vector<Instance> List(const std::string& root);
  // ENOENT names those that there are, when this one has no files of either kind.
  cachecore::Status CheckIsKnown() const;

  const std::string& root() const { return root_; }
  const std::string& name() const { return name_; }
  // What a command needs to be about this instance, as " --root R --instance NAME"; less where
  // defaults are meant.
  std::string Flags() const {
    return RootFlag() + (name_ == "default" ? "" : " --instance " + name_);
  }
  std::string RootFlag() const;

  std::string StateDir() const { return state_dir_; }
  std::string CacheDir() const { return StateDir() + "/cache"; }
  std::string SourcesDir() const { return StateDir() + "/sources"; }
  std::string SourceFile(const std::string& volume) const {
    return SourcesDir() + "/" + volume + ".json";
  }

  // Of `holdfast mount --persist`.
  std::string SavedMountsDir() const { return StateDir() + "/mounts"; }

  // What its supervisors have counted.
  std::string SuperviseTotals() const { return StateDir() + "/supervise.totals"; }

  std::string RunDir() const { return run_dir_; }
  std::string DeviceSocket() const { return RunDir() + "/device.sock"; }
  std::string ControlSocket() const { return RunDir() + "/control.sock"; }
  std::string MetricsSocket() const { return RunDir() + "/metrics.sock"; }
  std::string FuseDir() const { return RunDir() + "/fuse"; }
  std::string MountsDir() const { return RunDir() + "/mounts"; }
  // Where the layers of images that have several are mounted, for overlays of them.
  std::string LayersDir() const { return RunDir() + "/layers"; }
  std::string SettingsFile() const { return RunDir() + "/settings.json"; }
  std::string SuperviseStatus() const { return RunDir() + "/supervise.status"; }
  // The options that its supervisor was given.
  std::string SuperviseFlags() const { return RunDir() + "/supervise.flags"; }
  std::string PidFile(const std::string& program) const {
    return RunDir() + "/" + program + ".pid";
  }

  // And ConfigFile() + ".d".
  std::string ConfigFile() const { return Below("/etc/holdfast/") + ".conf"; }

  std::string LogDir() const { return Below("/var/log/holdfast/"); }
  std::string LogFile(const std::string& program) const {
    return LogDir() + "/" + program + ".log";
  }

 private:
  Instance(std::string root, std::string name);
  std::string Below(const char* directory) const { return root_ + directory + name_; }

  std::string root_;  // Without a trailing slash; "" is "/".
  std::string name_;
  // Without symbolic links, as the kernel's mount table has what is mounted there.
  std::string state_dir_;
  std::string run_dir_;
};

// Of an instance's state directory.
inline constexpr mode_t kInstanceDirMode = 0700;

// The directory that holds all instances' run directories.
std::string RunRoot(const std::string& root);
// EINVAL unless `root` is an absolute path; otherwise why there is no such directory.
cachecore::Status CheckRoot(const std::string& root);
// $HOLDFAST_ROOT, or "/".
std::string DefaultRoot();

}  // namespace host

#endif  // HOST_INSTANCE_INSTANCE_H_
