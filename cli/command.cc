#include "cli/command.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <numeric>
#include <string_view>
#include <utility>

#include "cachecore/base/deadline.h"
#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/parse_text.h"

namespace cli {

using cachecore::JsonText;
using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignal;

namespace {

// The innermost verb that was given.
const CLI::App* Chosen(const CLI::App& app) {
  const CLI::App* chosen = &app;
  while (!chosen->get_subcommands().empty()) chosen = chosen->get_subcommands().front();
  return chosen;
}

// As it is typed: "holdfast image build".
std::string NameOf(const CLI::App& verb) {
  const CLI::App* parent = verb.get_parent();
  return (parent == nullptr ? "" : NameOf(*parent) + " ") + verb.get_name();
}

// How many letters are to be put in, left out or exchanged to make `b` of `a`.
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// What to say where a verb of `app` is missing, or another word stands in its place; "" when `app`
// has no verbs.
std::string NoVerb(const CLI::App& app) {
  const auto verbs = app.get_subcommands([](const CLI::App*) { return true; });
  if (verbs.empty()) return "";
  const std::vector<std::string> left = app.remaining();
  const std::string word = left.empty() ? "" : left.front();
  const CLI::App* nearest = nullptr;
  size_t least = 1 + word.size() / 3;
  std::string all;
  for (const CLI::App* verb : verbs) {
    all += (all.empty() ? "" : ", ") + verb->get_name();
    const size_t distance = Distance(word, verb->get_name());
    if (distance <= least && (nearest == nullptr || distance < least)) {
      nearest = verb;
      least = distance;
    }
  }
  if (word.empty()) return NameOf(app) + " needs a verb; it has: " + all;
  if (word.starts_with('-')) {
    return NameOf(app) + " has no option " + word + ", and needs a verb; it has: " + all;
  }
  return NameOf(app) + " has no verb '" + word + "'; " +
         (nearest != nullptr ? "did you mean '" + nearest->get_name() + "'?" : "it has: " + all);
}

// For a monitor 2 means something else.  The option is looked for here, since what is parsed ends at
// the first error.
bool IsCheck(const CLI::App& verb, int argc, const char* const* argv) {
  const auto is_check = [](const char* word) { return std::string_view(word) == "--check"; };
  return verb.get_name() == "status" && std::any_of(argv, argv + argc, is_check);
}

void AddVersion(CLI::App* app, int*) {
  app->callback([] { std::cout << "holdfast " HOLDFAST_VERSION "\n"; });
}

}  // namespace

const std::vector<Verb>& Verbs() {
  static const std::vector<Verb> verbs = {
      {"mount", "Mount a remote image", AddMount},
      {"mount-erofs", "Mount an image by fsid, from the cachefiles device", AddMountErofs},
      {"umount", "Unmount what holdfast mount has mounted", AddUmount},
      {"mounts", "Show what comes back after a reboot, or bring it back", AddMounts},
      {"status", "Show instances, mounts, objects and waiting requests", AddStatus},
      {"cache", "Show, limit, pin and remove what is cached", AddCache},
      {"config", "Check and show an instance's configuration files", AddConfig},
      {"metrics", "Print counters for a monitoring system", AddMetrics},
      {"trace", "Show slow reads as they happen, and why", AddTrace},
      {"report", "Write a page about what was read of an image", AddReport},
      {"start", "Start an instance without a mount", AddStart},
      {"stop", "Stop an instance that has no mounts", AddStop},
      {"dump", "Print a cache's records, offline", AddDump},
      {"verify", "Check a mounted image's bytes, or a cache offline", AddVerify},
      {"image", "Make, publish and show images", AddImage},
      {"rootfs", "Make root file systems of images", AddRootfs},
      {"run", "Run a container of an image, by runc", AddRun},
      {"cachefiles-run", "Run a daemon of the kernel's cachefiles device", AddCachefilesRun},
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
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 128 and its number when a signal has ended it. "
      " "
      "See also: holdfast VERB --help, "
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
    return exit_code == kExitOk ? EndOutput() : exit_code;
  } catch (const CLI::Success& request) {  // --help, --version
    const int code = app->exit(request);
    return EndOutput(code);
  } catch (const CLI::ParseError& error) {
    const CLI::App* verb = Chosen(*app);
    const std::string no_verb = NoVerb(*verb);
    std::cerr << "holdfast: " << (no_verb.empty() ? error.what() : no_verb) << " (see "
              << NameOf(*verb) << " --help)\n";
    return IsCheck(*verb, argc, argv) ? kExitNotKnown : kExitUsage;
  }
}

int Fail(const Status& status, ExitCode code) {
  std::cerr << "holdfast: " << cachecore::WithoutControls(status.message()) << "\n";
  if (status.error() == EINTR && StopSignal() != 0) return kExitSignalled + StopSignal();
  return code;
}

int EndOutput(int code, ExitCode code_of_failure) {
  errno = 0;
  std::cout.flush();
  if (std::cout) return code;
  // An earlier write may have failed, whose error is not known any more.
  const std::string why = errno != 0 ? std::string(": ") + strerrordesc_np(errno) : "";
  return Fail(Status(EIO, "the output could not be written" + why), code_of_failure);
}

int PrintEnd(const Status& status, ExitCode code_of_failure, bool as_json) {
  if (as_json) {
    const char* const name = status.ok() ? "" : strerrorname_np(status.error());
    const nlohmann::json end = {{"errno", status.ok() ? 0 : status.error()},
                                {"error", name != nullptr ? name : ""},
                                {"message", status.ok() ? "" : status.message()}};
    std::cout << JsonText(end) << std::endl;
  }
  return status.ok() ? kExitOk : Fail(status, code_of_failure);
}

}  // namespace cli
