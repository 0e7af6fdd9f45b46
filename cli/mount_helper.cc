#include "cli/mount_helper.h"

#include <algorithm>
#include <array>
#include <iostream>
#include <memory>
#include <string_view>

#include "cli/command.h"

namespace cli {
namespace {

// mount(8) gives rw by default; an image mount is read-only all the same.
constexpr std::array<std::string_view, 11> kOthersWords = {
    "defaults", "auto",  "noauto", "nofail",  "user", "nouser",
    "users",    "owner", "group",  "_netdev", "rw"};

bool IsOthersWord(std::string_view word) {
  return word.empty() || word.starts_with("x-") || word.starts_with("X-") ||
         word.starts_with("comment=") ||
         std::find(kOthersWords.begin(), kOthersWords.end(), word) != kOthersWords.end();
}

// `holdfast mount`, with the words of -o as options of it.
std::vector<std::string> MountArguments(const MountHelperLine& line) {
  int unused = 0;
  const std::unique_ptr<CLI::App> app = MakeCommandLine(&unused);
  const CLI::App* verb = app->get_subcommand("mount");
  std::vector<std::string> arguments = {"holdfast", "mount", "--quiet"};
  std::string others;
  for (std::string word : WordsForUs(line.words)) {
    // mount(8) takes offset= for itself.
    if (word.starts_with("image-offset=")) word = word.substr(std::string("image-").size());
    const std::string option = "--" + word.substr(0, word.find('='));
    if (verb->get_option_no_throw(option) != nullptr) {
      arguments.push_back("--" + word);
    } else {
      others += (others.empty() ? "" : ",") + word;
    }
  }
  if (!others.empty()) arguments.push_back("--erofs-options=" + others);
  arguments.insert(arguments.end(), {"--", line.places[0], line.places[1]});
  return arguments;
}

}  // namespace

MountHelperLine MountHelperLine::Parse(int argc, const char* const* argv) {
  MountHelperLine line;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool takes_value = argument == "-o" || argument == "-t" || argument == "-N";
    if (takes_value && i + 1 == argc) line.is_wrong = true;
    if (takes_value && i + 1 < argc) {
      ++i;
      if (argument == "-o") line.words += "," + std::string(argv[i]);
    } else if (argument == "--help" || argument == "-h") {
      line.is_help = true;
    } else if (argument.starts_with("-")) {
      line.is_fake = line.is_fake || argument.find('f') != std::string::npos;
      line.is_wrong = line.is_wrong || argument.find_first_not_of("-fnsv") != std::string::npos;
    } else {
      line.places.push_back(argument);
    }
  }
  line.is_wrong = line.is_wrong || line.places.size() != 2;
  return line;
}

std::vector<std::string> WordsForUs(const std::string& words) {
  std::vector<std::string> found;
  for (size_t begin = 0; begin <= words.size();) {
    const size_t end = std::min(words.find(',', begin), words.size());
    const std::string word = words.substr(begin, end - begin);
    if (!IsOthersWord(word)) found.push_back(word);
    begin = end + 1;
  }
  return found;
}

int RunHoldfastMountHelper(int argc, const char* const* argv) {
  const MountHelperLine line = MountHelperLine::Parse(argc, argv);
  if (line.is_help || line.is_wrong) {
    (line.is_help ? std::cout : std::cerr)
        << "usage: mount.holdfast URL DIRECTORY [-o OPTION[=VALUE],...], each an option of "
           "holdfast mount or of the file system\n";
    return line.is_help ? kExitOk : kMountUsage;
  }
  if (line.is_fake) return kExitOk;
  const std::vector<std::string> arguments = MountArguments(line);
  std::vector<const char*> words;
  for (const std::string& argument : arguments) words.push_back(argument.c_str());
  const int code = RunCommand(static_cast<int>(words.size()), words.data());
  if (code == kExitUsage) return kMountUsage;
  return code == kExitFailed ? kMountFailed : code;
}

}  // namespace cli
