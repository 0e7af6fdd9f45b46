#include <unistd.h>

#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cli/command.h"
#include "cli/mount_helper.h"
#include "host/mount/erofs_mount.h"

namespace cli {
namespace {

using cachecore::CatchStopSignals;
using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;
using host::ErofsMount;
using host::ErofsMountWords;
using host::Instance;
using host::InstanceOptions;
using host::ParseTimeout;

// As long as the daemon lends an object: the kernel's mount waits for its client without an end.
constexpr char kLongTime[] = "24h";

struct MountErofsOptions {
  InstanceOptions instance;
  std::string mount_point;
  std::string words;
  std::string timeout = kLongTime;
  bool json = false;
};

// `*is_usage`: the command line is wrong.
Status MountErofs(const MountErofsOptions& options, bool* is_usage) {
  *is_usage = true;
  ASSIGN_OR_RETURN(ErofsMountWords words, ErofsMountWords::Parse(options.words));
  InstanceOptions where = options.instance;
  if (!words.instance.empty()) where.name = words.instance;
  if (!words.root.empty()) where.root = words.root;
  ASSIGN_OR_RETURN(Instance instance, where.Make());
  ASSIGN_OR_RETURN(const std::chrono::milliseconds timeout, ParseTimeout(options.timeout));
  *is_usage = false;
  CatchStopSignals();
  return ErofsMount(std::move(instance), options.mount_point, std::move(words), Deadline(timeout))
      .Run();
}

// An image in a file or on a device is the kernel's to mount: `mount -i` asks no helper.
int RunKernelMount(int argc, const char* const* argv) {
  std::vector<char*> arguments = {const_cast<char*>("mount"), const_cast<char*>("-i"),
                                  const_cast<char*>("-t"), const_cast<char*>("erofs")};
  for (int i = 1; i < argc; ++i) arguments.push_back(const_cast<char*>(argv[i]));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  Fail(Status::FromErrno(errno, "run mount"));
  return kMountFailed;
}

}  // namespace

int RunErofsMountHelper(int argc, const char* const* argv) {
  const MountHelperLine line = MountHelperLine::Parse(argc, argv);
  if (line.is_help || line.is_wrong) {
    (line.is_help ? std::cout : std::cerr)
        << "usage: mount.erofs.holdfast none DIRECTORY -o fsid=NAME[,domain_id=NAME]"
           "[,device=NAME...][,instance=NAME][,root=DIR]\n";
    return line.is_help ? kExitOk : kMountUsage;
  }
  MountErofsOptions options;
  options.words = line.words;
  const bool is_any_erofs = std::strstr(argv[0], "mount.erofs.") == nullptr;
  if (is_any_erofs && ("," + options.words).find(",fsid=") == std::string::npos) {
    return RunKernelMount(argc, argv);
  }
  if (line.is_fake) return kExitOk;
  options.mount_point = line.places[1];
  bool is_usage = false;
  const Status status = MountErofs(options, &is_usage);
  if (status.ok()) return kExitOk;
  Fail(status);
  return is_usage ? kMountUsage : kMountFailed;
}

void AddMountErofs(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<MountErofsOptions>();
  app->add_option("MOUNTPOINT", options->mount_point, "An existing directory")
      ->required()
      ->type_name("");
  app->add_option("-o,--options", options->words,
                  "fsid=NAME, and domain_id=NAME, device=NAME and other mount options")
      ->required()
      ->type_name("OPTIONS");
  app->add_option("--timeout", options->timeout,
                  "How long the mount may take as a whole (default: 24h)")
      ->type_name("TIME");
  app->add_flag("--json", options->json, "Print how it ended as JSON: errno, error, message");
  options->instance.AddTo(app);
  app->callback([options, exit_code] {
    bool is_usage = false;
    const Status status = MountErofs(*options, &is_usage);
    *exit_code = PrintEnd(status, is_usage ? kExitUsage : kExitFailed, options->json);
  });
}

}  // namespace cli
