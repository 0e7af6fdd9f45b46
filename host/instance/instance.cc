#include "host/instance/instance.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>

#include "cachecore/base/unix_socket.h"
#include "cachecore/system/files.h"
#include "host/instance/lock_file.h"

namespace host {
namespace {

using cachecore::ListDirectory;
using cachecore::Result;
using cachecore::Status;

constexpr size_t kNameLengthMax = 64;

std::string WithoutTrailingSlashes(std::string path) {
  while (!path.empty() && path.back() == '/') path.pop_back();
  return path;
}

std::string WithoutLinks(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::weakly_canonical(path, error);
  return error ? path : real.string();
}

bool IsValidName(const std::string& name) {
  constexpr char kAllowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
  return !name.empty() && name.size() <= kNameLengthMax && name != "." && name != ".." &&
         name != kLocksDirectory && name.find_first_not_of(kAllowed) == std::string::npos;
}

Status CheckIsAbsolute(const std::string& root) {
  if (root.starts_with('/')) return {};
  return Status(EINVAL, "the root directory '" + root + "' must be an absolute path");
}

}  // namespace

Instance::Instance(std::string root, std::string name)
    : root_(std::move(root)),
      name_(std::move(name)),
      state_dir_(WithoutLinks(Below("/var/lib/holdfast/"))),
      run_dir_(WithoutLinks(Below("/run/holdfast/"))) {}

Result<Instance> Instance::Make(const std::string& root, const std::string& name) {
  if (!IsValidName(name)) {
    return Status(EINVAL, "'" + name +
                              "' can't name an instance: use 1 to 64 characters of A-Z, a-z, 0-9, "
                              "'_', '.' and '-'");
  }
  RETURN_IF_ERROR(CheckIsAbsolute(root));
  Instance instance(WithoutTrailingSlashes(root), name);
  RETURN_IF_ERROR(
      cachecore::UnixAddress(instance.ControlSocket(), "use a shorter --root").status());
  return instance;
}

std::vector<Instance> Instance::List(const std::string& root) {
  std::set<std::string> names;
  for (const std::string& directory :
       {RunRoot(root), WithoutTrailingSlashes(root) + "/var/lib/holdfast"}) {
    for (const std::string& name : ListDirectory(directory)) names.insert(name);
  }
  std::vector<Instance> instances;
  for (const std::string& name : names) {
    Result<Instance> instance =
        Make(root.empty() ? "/" : root, name);  // As Instance::root() has it.
    if (instance.ok()) instances.push_back(*instance);
  }
  return instances;
}

Status Instance::CheckIsKnown() const {
  std::string known;
  for (const Instance& instance : List(root_)) {
    if (instance.name() == name_) return {};
    known += (known.empty() ? "" : ", ") + instance.name();
  }
  return Status(ENOENT, "there is no instance " + name_ + " beneath " +
                            (root_.empty() ? "/" : root_) +
                            (known.empty() ? "; there are none" : "; there are: " + known));
}

std::string Instance::RootFlag() const {
  if (root_ == WithoutTrailingSlashes(DefaultRoot())) return "";
  return " --root " + (root_.empty() ? "/" : root_);
}

std::string RunRoot(const std::string& root) {
  return WithoutTrailingSlashes(root) + "/run/holdfast";
}

Status CheckRoot(const std::string& root) {
  RETURN_IF_ERROR(CheckIsAbsolute(root));
  struct stat info;
  if (stat(root.c_str(), &info) != 0) {
    const int error = errno;
    return Status(error, "the root directory " + root + " can't be looked at (" +
                             strerrordesc_np(error) + "); give the --root of the instances");
  }
  if (S_ISDIR(info.st_mode)) return {};
  return Status(ENOTDIR, "the root directory " + root +
                             " is not a directory; give the --root of the instances");
}

std::string DefaultRoot() {
  const char* root = std::getenv("HOLDFAST_ROOT");
  return root != nullptr && root[0] != '\0' ? root : "/";
}

}  // namespace host
