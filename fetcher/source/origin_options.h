// Options of origins: the files and names by which a source says how requests are let in.
//
// Model    plain values, as SourceConfig has read them; no secrets, only where they are.
// Threads  immutable values.
// See      docs/protocol.md "Sources".

#ifndef FETCHER_SOURCE_ORIGIN_OPTIONS_H_
#define FETCHER_SOURCE_ORIGIN_OPTIONS_H_

#include <compare>
#include <string>
#include <vector>

namespace fetcher {

struct CredentialFiles {
  std::string client_cert;  // Paths, or "".
  std::string client_key;   // "": in the certificate's file.
  std::string headers;

  bool empty() const { return client_cert.empty() && headers.empty(); }
};

struct S3Options {
  std::string endpoint;          // "http(s)://HOST[:PORT]"; "" is AWS.
  std::string region;            // "": the profile's.
  std::string profile;           // "": "default", and the environment before it.
  std::string credentials_file;  // Paths, or "".
  std::string config_file;
  bool path_style = false;  // ENDPOINT/BUCKET/KEY instead of BUCKET.ENDPOINT/KEY.

  friend auto operator<=>(const S3Options&, const S3Options&) = default;
};

struct RegistryOptions {
  std::string auth_file;                     // "": anonymous.
  std::vector<std::string> more_auth_files;  // In order, where that says nothing of a registry.
  bool plain_http = false;

  std::vector<std::string> AuthFiles() const;
  std::string AuthFilesText() const;
};

}  // namespace fetcher

#endif  // FETCHER_SOURCE_ORIGIN_OPTIONS_H_
