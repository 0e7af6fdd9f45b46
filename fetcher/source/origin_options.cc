#include "fetcher/source/origin_options.h"

namespace fetcher {

std::vector<std::string> RegistryOptions::AuthFiles() const {
  if (auth_file.empty()) return {};
  std::vector<std::string> files = {auth_file};
  files.insert(files.end(), more_auth_files.begin(), more_auth_files.end());
  return files;
}

std::string RegistryOptions::AuthFilesText() const {
  std::string text = auth_file;
  for (const std::string& file : more_auth_files) text += ", " + file;
  return text;
}

}  // namespace fetcher
