#include "host/mount/answering_paths.h"

#include <sys/stat.h>

#include <cerrno>
#include <functional>

#include "cachecore/system/bounded_call.h"
#include "host/images/source_files.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;

Status CallAndForget(const std::function<void()>& call, const std::string& what,
                     const Deadline& deadline) {
  const auto in_child = [&call]() -> Result<std::string> {
    call();
    return std::string();
  };
  const Status status = cachecore::CallInChild(in_child, deadline).status();
  if (status.error() != ETIMEDOUT) return status;
  return Status(ETIMEDOUT,
                what + " is on a file system that does not answer (--timeout waits longer)");
}

}  // namespace

Status CheckAnswers(const std::string& what, const std::string& path, const Deadline& deadline) {
  const auto look_up = [&path] {
    struct stat info;
    (void)stat(path.c_str(), &info);
  };
  return CallAndForget(look_up, what + " " + path, deadline);
}

Status CheckArgumentsAnswer(const std::vector<std::string>& arguments, const Deadline& deadline) {
  for (const std::string& argument : arguments) {
    const size_t colon = argument.find(':');
    const size_t slash = argument.find('/');
    const bool has_kind =
        colon != std::string::npos && (slash == std::string::npos || colon < slash);
    const std::string path = has_kind ? argument.substr(colon + 1) : argument;
    if (path.empty() || path.starts_with("//")) continue;  // An URL's.
    RETURN_IF_ERROR(CheckAnswers("the path", path, deadline));
    const size_t tag = path.rfind(':');
    if (tag == std::string::npos || tag < path.rfind('/') + 1) continue;
    RETURN_IF_ERROR(CheckAnswers("the path", path.substr(0, tag), deadline));
  }
  return {};
}

Status CheckAnswers(const ImageSource& source, const Deadline& deadline) {
  const auto look_up = [&source] {
    FilesOfSource(source).IgnoreError("the mount finds it again, and says so");
  };
  return CallAndForget(
      look_up, "cannot mount " + source.PublicUrl() + ": it, or a file that it needs,", deadline);
}

}  // namespace host
