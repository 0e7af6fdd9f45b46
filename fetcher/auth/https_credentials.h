// FileCredentials: what lets requests in at an https site, from files that may be rotated.
//
// Model    a client certificate with its key (PEM) and a file of header lines, "Name: value" each,
//          with empty lines and lines that begin with '#' passed over.  Read again when refused.
// Errors   those of ReadSecretFile for the key and the headers; EINVAL names a line's number, not
// its
//          text.
// Threads  any; blocks on the files' disk.

#ifndef FETCHER_FILE_CREDENTIALS_H_
#define FETCHER_FILE_CREDENTIALS_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/status.h"
#include "fetcher/http_authorizer.h"
#include "fetcher/http_engine.h"

namespace fetcher {

class LocalFiles;

struct CredentialFiles {
  std::string client_cert;  // Paths, or "".
  std::string client_key;   // "": in the certificate's file.
  std::string headers;

  bool empty() const { return client_cert.empty() && headers.empty(); }
};

cachecore::Result<HttpCredentials> ReadCredentialFiles(const CredentialFiles& files,
                                                       const LocalFiles& local);
// The lines of a headers file.
cachecore::Result<std::vector<std::string>> ParseHeaderLines(std::string_view text);

// `engine` outlives the result.
std::shared_ptr<HttpAuthorizer> MakeFileAuthorizer(const CredentialFiles& files,
                                                   HttpEngine* engine);

}  // namespace fetcher

#endif  // FETCHER_FILE_CREDENTIALS_H_
