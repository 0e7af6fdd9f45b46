// InstanceOptions: --instance, --root and --timeout, for every command that has them.
//
// Errors   EINVAL, naming the flag.
// Threads  immutable values once parsed.

#ifndef HOST_INSTANCE_INSTANCE_OPTIONS_H_
#define HOST_INSTANCE_INSTANCE_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

// --instance and --root, for the verbs that have them.
struct InstanceOptions {
  std::string name = "default";
  std::string root = DefaultRoot();

  void AddTo(CLI::App* app);
  cachecore::Result<Instance> Make() const { return Instance::Make(root, name); }
};

// For options whose empty value would pass for one that was not given.
CLI::Validator NotEmpty();

// EINVAL with what the parser says of them.
cachecore::Status ParseArguments(CLI::App* app, std::vector<std::string> arguments);

// How long a command waits for another one on the same instance, as --timeout has it.
inline constexpr char kLockTimeoutText[] = "60s";
// Of --timeout, which the error names; EINVAL also for one below 1ms.
cachecore::Result<std::chrono::milliseconds> ParseTimeout(const std::string& text);

}  // namespace host

#endif  // HOST_INSTANCE_INSTANCE_OPTIONS_H_
