#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/system/spawn.h"
#include "cachecore/system/subprocess.h"
#include "cli/command.h"
#include "cli/rootfs_options.h"
#include "host/containers/rootfs.h"
#include "host/instance/privileges.h"

namespace cli {
namespace {

using cachecore::CatchStopSignals;
using cachecore::FindTool;
using cachecore::Result;
using cachecore::SpawnOptions;
using cachecore::Status;
using cachecore::StopSignal;
using cachecore::StopSignalled;
using cachecore::UniqueFd;
using host::CreateRootfs;
using host::RemoveOwnRootfs;
using host::RequireMountRights;
using host::RootfsBundle;
using host::RootfsRequest;

sigset_t ForwardedSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD}) {
    sigaddset(&set, signal);
  }
  return set;
}

// On this terminal, in its foreground process group.
Result<pid_t> Start(const std::vector<std::string>& argv) {
  SpawnOptions options;
  options.argv = argv;
  options.input = STDIN_FILENO;
  options.output = STDOUT_FILENO;
  options.errors = STDERR_FILENO;
  options.in_child = []() -> const char* {
    std::signal(SIGXFSZ, SIG_DFL);  // Ignored by `holdfast`.
    return nullptr;
  };
  return cachecore::Spawn(options);
}

// Starts it and waits for its end; signals that we are sent are sent on.
Result<int> RunForeground(const std::vector<std::string>& argv) {
  const sigset_t forwarded = ForwardedSignals();
  sigset_t before;
  sigprocmask(SIG_BLOCK, &forwarded, &before);
  const Result<pid_t> started = Start(argv);
  if (!started.ok()) {
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return started.status();
  }
  const pid_t pid = *started;
  for (;;) {
    siginfo_t info;
    if (sigwaitinfo(&forwarded, &info) < 0) continue;
    // What the terminal sends, it sends to the runtime as well.
    if (info.si_signo != SIGCHLD) {
      if (info.si_code <= 0) kill(pid, info.si_signo);
      continue;
    }
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) != pid) continue;
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return WIFEXITED(status) ? WEXITSTATUS(status) : kExitSignalled + WTERMSIG(status);
  }
}

int RunRun(const RootfsOptions& options) {
  Result<RootfsRequest> request = options.Make();
  if (!request.ok()) return Fail(request.status(), kExitUsage);
  const Status allowed = RequireMountRights("running a container");
  if (!allowed.ok()) return Fail(allowed);
  const Result<std::string> runc = FindTool("runc", "runc");
  if (!runc.ok()) return Fail(runc.status());
  CatchStopSignals();
  const Status answers = options.CheckAnswers(*request);
  if (!answers.ok()) return Fail(answers);
  request->goes_with_run = true;
  request->bundle.terminal = isatty(STDIN_FILENO) == 1;
  if (request->name.empty()) {
    request->name = "run-" + std::to_string(std::time(nullptr)) + "-" + std::to_string(getpid());
  }
  Result<UniqueFd> held = CreateRootfs(*request);
  if (!held.ok()) return Fail(held.status());
  const std::string bundle = RootfsBundle(request->instance, request->name);
  Result<int> code = kExitSignalled + StopSignal();
  if (!StopSignalled()) {
    code = RunForeground(
        {*runc, "--root", bundle + "/runc", "run", "--bundle", bundle, request->name});
  }
  const Status removed =
      RemoveOwnRootfs(request->instance, request->name, std::move(held).value(), request->timeout);
  if (!code.ok()) return Fail(code.status());
  // The container's own code is what was asked for.
  if (!removed.ok()) std::cerr << "holdfast: left behind: " << removed.message() << "\n";
  return *code;
}

}  // namespace

void AddRun(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<RootfsOptions>();
  app->add_option("REF", options->reference, "oci://..., oci-layout:DIR[:TAG]")
      ->required()
      ->type_name("");
  app->add_option("CMD", options->bundle.command, "After --: in the place of the image's command")
      ->type_name("");
  app->add_option("--name", options->name, "What to call the container")->type_name("NAME");
  options->AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunRun(*options); });
}

}  // namespace cli
