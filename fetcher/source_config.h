// SourceConfig: where the objects of one volume come from, as its JSON file says.
//
// Model    {"version":1, "origins":["http://h/base/","file:///dir/"], "query":"?a=b",
//          "ca_file":"/x.pem", ...}; all but version and origins may be absent.  An object's URL is
//          origin + key.
//          "verity":"sha256:HEX" is the fs-verity digest, "merkle":"KEY" its tree's key.
//          Origins and query may carry credentials: only RedactUrl's result may be shown.
// Errors   ENOENT no such file; EINVAL it is not a source file, saying why; others from reading it.
// Threads  immutable values; LoadSourceConfig reads one file.
// See      docs/protocol.md "Sources".

#ifndef FETCHER_SOURCE_CONFIG_H_
#define FETCHER_SOURCE_CONFIG_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/status.h"
#include "cachecore/verity_tree.h"
#include "fetcher/file_credentials.h"
#include "fetcher/registry_site.h"
#include "fetcher/s3_credentials.h"

namespace fetcher {

struct SourceConfig {
  std::vector<std::string> origins;  // In order of preference, each ending in '/'.
  std::string query;
  std::string ca_file;
  CredentialFiles files;     // For https origins.
  S3Options s3;              // For s3 origins.
  RegistryOptions registry;  // For oci origins.
  std::optional<cachecore::Digest> verity;  // What the object's bytes are checked against.
  std::string merkle;                       // The key of its Merkle tree; "": by its own key.
  std::string stamp;                        // Tells this text from the next.
};

cachecore::Result<SourceConfig> ParseSourceConfig(std::string_view json);
// Reads DIR/VOLUME.json.  Every error names the file.
cachecore::Result<SourceConfig> LoadSourceConfig(const std::string& dir, const std::string& volume);

// EINVAL unless `key` can stand as the last segment of a URL and names no directory.
cachecore::Status CheckObjectKey(std::string_view key);
// Undoes %XX.  EINVAL for a malformed escape or an escaped NUL.
cachecore::Result<std::string> PercentDecode(std::string_view text);
// Without user, password, query and fragment.
std::string RedactUrl(std::string_view url);

}  // namespace fetcher

#endif  // FETCHER_SOURCE_CONFIG_H_
