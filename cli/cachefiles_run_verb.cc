#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/unique_fd.h"
#include "cli/command.h"
#include "host/cachefiles/completer.h"
#include "host/cachefiles/private_device.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr char kLibrary[] = "libholdfast-cachefiles.so";

// Beside the programs' directory, in a build tree as where it is installed.
Result<std::string> FindLibrary() {
  std::error_code error;
  const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path library =
      own.parent_path().parent_path() / "lib" / "holdfast" / kLibrary;
  if (library.string().find_first_of(" :") != std::string::npos) {
    return Status(EINVAL, library.string() +
                              " has a space or a colon in its path, where LD_PRELOAD "
                              "would be split; install holdfast elsewhere");
  }
  if (access(library.c_str(), R_OK) == 0) return library.string();
  return Status(ENOENT, library.string() + " is missing; install holdfast completely");
}

// Whether the dynamic linker starts this program.  What is not a 64-bit ELF file, as a script, is
// taken for one that starts a dynamic program.
bool IsStatic(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Elf64_Ehdr header;
  if (pread(file.get(), &header, sizeof(header), 0) != sizeof(header) ||
      !std::equal(header.e_ident, header.e_ident + SELFMAG, ELFMAG) ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr)) {
    return false;
  }
  std::vector<Elf64_Phdr> parts(header.e_phnum);
  const auto size = static_cast<ssize_t>(parts.size() * sizeof(Elf64_Phdr));
  if (pread(file.get(), parts.data(), parts.size() * sizeof(Elf64_Phdr),
            static_cast<off_t>(header.e_phoff)) != size) {
    return false;
  }
  return std::none_of(parts.begin(), parts.end(),
                      [](const Elf64_Phdr& part) { return part.p_type == PT_INTERP; });
}

// As execvp(3) looks for it; the name as it is when nothing is found.
std::string PathOf(const std::string& program) {
  const char* const search = std::getenv("PATH");
  if (program.find('/') != std::string::npos || search == nullptr) return program;
  std::string directories = std::string(search) + ":";
  for (size_t begin = 0, end = 0; (end = directories.find(':', begin)) != std::string::npos;
       begin = end + 1) {
    const std::string path = directories.substr(begin, end - begin) + "/" + program;
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return program;
}

struct RunOptions {
  bool is_static = false;
  bool has_exact_ids = false;
  std::string device;  // "": the host's own.
  std::vector<std::string> command;
};

// Has the program started with the library.
Status Preload(const std::string& program) {
  ASSIGN_OR_RETURN(std::string preload, FindLibrary());
  if (IsStatic(program)) {
    return Status(ENOEXEC, program +
                               " is a static program, which takes no preloaded library; start "
                               "it with --static");
  }
  if (const char* const others = std::getenv("LD_PRELOAD")) preload += std::string(":") + others;
  setenv("LD_PRELOAD", preload.c_str(), /*replace=*/1);
  return Status();
}

Status Prepare(const RunOptions& options) {
  if (!options.is_static) RETURN_IF_ERROR(Preload(PathOf(options.command.front())));
  if (!options.is_static && options.device.empty()) return Status();
  RETURN_IF_ERROR(
      host::EnterWithDevice(options.device.empty() ? host::kCachefilesPath : options.device));
  return options.has_exact_ids ? host::StartCompleter() : Status();
}

int RunCachefilesRun(const RunOptions& options) {
  const Status prepared = Prepare(options);
  if (!prepared.ok()) return Fail(prepared);
  std::vector<char*> arguments;
  for (const std::string& one : options.command)
    arguments.push_back(const_cast<char*>(one.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  const ExitCode code = errno == ENOENT ? kExitNotFound : kExitCannotRun;
  return Fail(Status::FromErrno(errno, "run " + options.command.front()), code);
}

}  // namespace

void AddCachefilesRun(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<RunOptions>();
  CLI::Option* const is_static = app->add_flag(
      "--static", options->is_static,
      "Preload nothing; the program may be static, and its /dev/cachefiles is the device");
  app->add_flag("--exact-ids", options->has_exact_ids,
                "With --static: the ids of messages are the kernel's, by a filter of system calls")
      ->needs(is_static);
  app->add_option("--cachefiles-device", options->device,
                  "The device, which is the program's /dev/cachefiles (default with --static: "
                  "/dev/cachefiles)")
      ->type_name("PATH");
  app->add_option("DAEMON", options->command, "After --: the program and its arguments")
      ->required()
      ->type_name("");
  app->callback([options, exit_code] { *exit_code = RunCachefilesRun(*options); });
}

}  // namespace cli
