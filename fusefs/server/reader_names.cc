#include "fusefs/server/reader_names.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "cachecore/base/unique_fd.h"

namespace fusefs {
namespace {

// The value of a line "Name:\tvalue".
std::string_view LineOf(std::string_view text, std::string_view name) {
  const size_t at = text.find(name);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = text.substr(at + name.size());
  return rest.substr(0, rest.find('\n'));
}

}  // namespace

cachecore::Reader ReaderOf(pid_t thread) {
  cachecore::Reader reader{.thread = thread};
  if (thread == 0) return reader;
  const std::string path = "/proc/" + std::to_string(thread) + "/status";
  const cachecore::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[512];  // Both lines are among the first.
  const ssize_t got = fd.valid() ? read(fd.get(), text, sizeof(text)) : -1;
  if (got <= 0) return reader;
  const std::string_view status(text, static_cast<size_t>(got));
  reader.command = LineOf(status, "Name:\t");
  reader.process = std::atoi(std::string(LineOf(status, "\nTgid:\t")).c_str());
  return reader;
}

}  // namespace fusefs
