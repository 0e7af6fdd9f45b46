// HttpsCredentials: client certificate and header lines for https origins, from files that may be
// rotated.
//
// Model    a client certificate with its key (PEM) and a file of header lines, "Name: value" each,
//          with empty lines and lines that begin with '#' passed over.  Read again when refused.
// Errors   those of ReadSecretFile for the key and the headers; EINVAL names a line's number, not
//          its text.
// Threads  any; blocks on the files' disk.

#ifndef FETCHER_AUTH_HTTPS_CREDENTIALS_H_
#define FETCHER_AUTH_HTTPS_CREDENTIALS_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/status.h"
#include "fetcher/http/http_authorizer.h"
#include "fetcher/http/http_engine.h"
#include "fetcher/source/origin_options.h"

namespace fetcher {

class LocalFiles;

cachecore::Result<HttpCredentials> ReadCredentialFiles(const CredentialFiles& files,
                                                       const LocalFiles& local);
// The lines of a headers file.
cachecore::Result<std::vector<std::string>> ParseHeaderLines(std::string_view text);

// `engine` outlives the result.
std::shared_ptr<HttpAuthorizer> MakeFileAuthorizer(const CredentialFiles& files,
                                                   HttpEngine* engine);

}  // namespace fetcher

#endif  // FETCHER_AUTH_HTTPS_CREDENTIALS_H_
