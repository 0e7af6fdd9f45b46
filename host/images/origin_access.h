// OriginAccess: how the fetcher reaches a source's origins: files, names and places, never
// secrets.
//
// Model    the options of `holdfast mount`, filled up from the environment where AWS's tools look,
//          made absolute and looked at before anything is started.  The secrets stay where they
//          are: the fetcher reads the files itself, and again when they are refused.
// Errors   EINVAL: an option that fits no origin, or is malformed; else the errno of a file, with
//          the cure.
// Threads  immutable values.
// See      holdfast(1) mount; docs/sources.md

#ifndef HOST_IMAGES_ORIGIN_ACCESS_H_
#define HOST_IMAGES_ORIGIN_ACCESS_H_

#include <CLI/CLI.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace host {

struct OriginAccess {
  std::string ca_file;  // Absolute paths once they are resolved, or "".
  std::string client_cert;
  std::string client_key;
  std::string headers_file;
  std::string s3_endpoint;
  std::string s3_region;
  std::string s3_profile;
  std::string s3_credentials_file;
  std::string s3_config_file;
  bool s3_path_style = false;

  void AddTo(CLI::App* app);
  // Checked against the origins' URLs, and with what the environment says.
  cachecore::Result<OriginAccess> Resolve(const std::vector<std::string>& urls) const;
  // Adds its fields to a source file's.
  void AddTo(nlohmann::json* source) const;
};

// The variables of this environment that the defaults of options are taken from, registries' too.
// None holds a secret: of proxies with a user there is none.
std::map<std::string, std::string> AccessEnvironment();
// Makes them what they were.  REQUIRES: one thread.
void SetAccessEnvironment(const std::map<std::string, std::string>& environment);

}  // namespace host

#endif  // HOST_IMAGES_ORIGIN_ACCESS_H_
