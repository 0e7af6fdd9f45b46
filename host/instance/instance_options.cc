#include "host/instance/instance_options.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cachecore/base/parse_text.h"

namespace host {

using cachecore::Result;
using cachecore::Status;

CLI::Validator NotEmpty() {
  const auto why = [](const std::string& value) {
    return std::string(value.empty() ? "has an empty value; give one, or leave the option out"
                                     : "");
  };
  return CLI::Validator(why, "");
}

Status ParseArguments(CLI::App* app, std::vector<std::string> arguments) {
  std::reverse(arguments.begin(), arguments.end());  // As CLI11 wants a vector.
  try {
    app->parse(std::move(arguments));
    return {};
  } catch (const CLI::Error& error) {
    return Status(EINVAL, error.what());
  }
}

void InstanceOptions::AddTo(CLI::App* app) {
  app->add_option("--instance", name, "The instance (default: default)")->type_name("NAME");
  app->add_option("--root", root, "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
}

Result<std::chrono::milliseconds> ParseTimeout(const std::string& text) {
  Result<cachecore::Duration> parsed = cachecore::ParseDuration(text);
  if (!parsed.ok()) return std::move(parsed).status().WithContext("--timeout");
  const auto timeout = std::chrono::ceil<std::chrono::milliseconds>(*parsed);
  if (timeout.count() <= 0) return Status(EINVAL, "--timeout must be at least 1ms");
  return timeout;
}

}  // namespace host
