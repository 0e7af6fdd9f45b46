// The command line that mount(8) gives to its helpers, /sbin/mount.TYPE.
//
// Model    mount.TYPE SOURCE DIRECTORY [-fnsv] [-N NAMESPACE] [-o WORD,...] [-t TYPE].  mount(8)
//          has taken out words of its own (noauto, nofail, x-*, ...).  A helper that is run by
//          hand, or by another mount, gets them too, and WordsForUs() takes them out.
// Errors   exit codes are those of mount(8): kMountUsage, kMountFailed.
// See      mount(8), "EXTERNAL HELPERS" and "FILESYSTEM-INDEPENDENT MOUNT OPTIONS".

#ifndef CLI_MOUNT_HELPER_H_
#define CLI_MOUNT_HELPER_H_

#include <string>
#include <vector>

namespace cli {

inline constexpr int kMountUsage = 1;
inline constexpr int kMountFailed = 32;

struct MountHelperLine {
  std::vector<std::string> places;  // SOURCE and DIRECTORY, when it is right.
  std::string words;                // Those of all -o, each with a comma before it.
  bool is_fake = false;             // -f: nothing is to be mounted.
  bool is_help = false;
  bool is_wrong = false;

  static MountHelperLine Parse(int argc, const char* const* argv);
};

// Without those that are of mount(8), of fstab(5) or systemd's.
std::vector<std::string> WordsForUs(const std::string& words);

// mount.holdfast URL DIRECTORY [-o OPTION,...]: `holdfast mount` for mount(8) and fstab(5).  A word
// that names an option of `holdfast mount` is that option, any other goes to the file system.
int RunHoldfastMountHelper(int argc, const char* const* argv);

}  // namespace cli

#endif  // CLI_MOUNT_HELPER_H_
