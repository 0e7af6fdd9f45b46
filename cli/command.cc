#include "cli/command.h"

#include <unistd.h>

#include <cerrno>
#include <iostream>

namespace cli {

using cachecore::Status;

const std::vector<Verb>& Verbs() {
  static const std::vector<Verb> verbs = {
      {"mount", "Mount a remote image", AddMount},
      {"umount", "Unmount what holdfast mount has mounted", AddUmount},
      {"status", "Show instances, mounts, objects and waiting requests", AddStatus},
      {"stop", "Stop an instance that has no mounts", AddStop},
      {"dump", "Print a cache's records, offline", AddDump},
      {"verify", "Check a mounted image's bytes, or a cache offline", AddVerify},
      {"image", "Make, publish and show images", AddImage},
      {"rootfs", "Make root file systems of images", AddRootfs},
      {"run", "Run a container of an image, by runc", AddRun},
      {"upgrade", "Swap running daemons for the programs on disk", AddUpgrade},
      {"supervise", "Run an instance's daemons in the foreground", AddSupervise},
      {"version", "Print the version", AddVersion},
  };
  return verbs;
}

std::unique_ptr<CLI::App> MakeCommandLine(int* exit_code) {
  auto app = std::make_unique<CLI::App>(
      "Mounts remote images so that a read waits for its bytes, whatever dies meanwhile.",
      "holdfast");
  app->set_version_flag("--version", "holdfast " HOLDFAST_VERSION, "Print the version");
  app->require_subcommand(1);
  app->footer(
      "Exit codes: 0 done, 1 failed, 2 wrong usage.  See also: holdfast VERB --help, "
      "man holdfast");
  for (const Verb& verb : Verbs())
    verb.add(app->add_subcommand(verb.name, verb.summary), exit_code);
  return app;
}

int RunCommand(int argc, const char* const* argv) {
  int exit_code = kExitOk;
  const std::unique_ptr<CLI::App> app = MakeCommandLine(&exit_code);
  try {
    app->parse(argc, argv);
    return exit_code;
  } catch (const CLI::Success& request) {  // --help, --version
    return app->exit(request);
  } catch (const CLI::ParseError& error) {
    const auto chosen = app->get_subcommands();
    const std::string verb = chosen.empty() ? "" : " " + chosen.front()->get_name();
    std::cerr << "holdfast: " << error.what() << " (see holdfast" << verb << " --help)\n";
    return kExitUsage;
  }
}

void InstanceOptions::AddTo(CLI::App* app) {
  app->add_option("--instance", name, "The instance (default: default)")->type_name("NAME");
  app->add_option("--root", root, "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
}

int Fail(const Status& status, ExitCode code) {
  std::cerr << "holdfast: " << status.message() << "\n";
  return code;
}

Status RequireRoot(const std::string& what) {
  if (geteuid() == 0) return {};
  return Status(EPERM, what + " needs root; use sudo");
}

}  // namespace cli
