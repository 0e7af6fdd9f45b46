// TemporaryDirectory: an empty directory of one test, removed with all it holds.
//
// Owns     the directory and everything in it; nothing may be mounted below it at the end.

#ifndef TESTS_HOST_INSTANCE_TEMPORARY_DIRECTORY_H_
#define TESTS_HOST_INSTANCE_TEMPORARY_DIRECTORY_H_

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace host {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string path = std::filesystem::temp_directory_path() / "holdfast-cli-XXXXXX";
    path_ = std::filesystem::canonical(mkdtemp(path.data()));
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace host

#endif  // TESTS_HOST_INSTANCE_TEMPORARY_DIRECTORY_H_
