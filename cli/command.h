// The `holdfast` command: its verbs, and what all of them share.
//
// Model    one Verb for each word after `holdfast`, one file for each Verb.  add() declares a
//          verb's options and what runs once they are parsed, which leaves its exit code in
//          *exit_code.
// Errors   every message goes to stderr as "holdfast: ...".  Exit codes: 0 done, 1 the operation
//          failed, 2 the command line is wrong, 128 and the signal's number interrupted.
// Threads  one thread only.
// See      holdfast(1); tests/cli/docs_test.cc compares options, man page and completion.

#ifndef CLI_COMMAND_H_
#define CLI_COMMAND_H_

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "host/instance/instance_options.h"

namespace cli {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitNotKnown = 3,  // Of `status --check`, also where its command line is wrong.
  // Of a program that was to be started, as env(1) has them.
  kExitCannotRun = 126,
  kExitNotFound = 127,
};
// And the signal's number, as a shell has it.
inline constexpr int kExitSignalled = 128;

struct Verb {
  const char* name;
  const char* summary;
  void (*add)(CLI::App* app, int* exit_code);
};

// In the order in which --help lists them.
const std::vector<Verb>& Verbs();
std::unique_ptr<CLI::App> MakeCommandLine(int* exit_code);
int RunCommand(int argc, const char* const* argv);

void AddMount(CLI::App* app, int* exit_code);
void AddMountErofs(CLI::App* app, int* exit_code);
void AddConfig(CLI::App* app, int* exit_code);
void AddMounts(CLI::App* app, int* exit_code);
void AddUmount(CLI::App* app, int* exit_code);
void AddStatus(CLI::App* app, int* exit_code);
void AddCache(CLI::App* app, int* exit_code);
void AddMetrics(CLI::App* app, int* exit_code);
void AddTrace(CLI::App* app, int* exit_code);
void AddReport(CLI::App* app, int* exit_code);
void AddStart(CLI::App* app, int* exit_code);
void AddStop(CLI::App* app, int* exit_code);
void AddDump(CLI::App* app, int* exit_code);
void AddVerify(CLI::App* app, int* exit_code);
void AddSupervise(CLI::App* app, int* exit_code);
void AddUpgrade(CLI::App* app, int* exit_code);
void AddImage(CLI::App* app, int* exit_code);
void AddRootfs(CLI::App* app, int* exit_code);
void AddRun(CLI::App* app, int* exit_code);
void AddCachefilesRun(CLI::App* app, int* exit_code);

// mount.erofs.holdfast, which mount(8) runs (cli/mount_helper.h).
int RunErofsMountHelper(int argc, const char* const* argv);

// Prints a message as this command's and returns `code`.
int Fail(const cachecore::Status& status, ExitCode code = kExitFailed);
// Flushes stdout and returns `code`; `code_of_failure`, and the error is said, where what was
// printed could not be written.  RunCommand does it after each verb that returned 0.
int EndOutput(int code = kExitOk, ExitCode code_of_failure = kExitFailed);
// What --json of a verb without output of its own prints, on stdout: {"errno":N,"error":NAME,
// "message":TEXT}, N 0 and the others empty when all went well.  Fails as Fail() does.
int PrintEnd(const cachecore::Status& status, ExitCode code_of_failure, bool as_json);

}  // namespace cli

#endif  // CLI_COMMAND_H_
