// Registries as origins: where a repository's blobs are, and the tokens that let requests in.
//
// Model    oci://REGISTRY/REPO/ is https://REGISTRY/v2/REPO/blobs/, and http only if asked for.
//          Credentials are brought as the registry's challenge says: for Basic the user and
//          password themselves; for Bearer a token of the service that the challenge names, which
//          is given them, over TLS unless plain http was asked for.  The auth file, or the helper
//          that it names, is asked anew each time, so whoever renews what is in there is heard.
// Errors   see RenewingAuthorizer; sentences name the auth file and the host, nothing secret.
// Threads  MakeRegistrySite on the event loop; BringRegistryCredentials blocks.
// See      docs/sources.md "Registries"; the distribution project's token authentication.

#ifndef FETCHER_REGISTRY_SITE_H_
#define FETCHER_REGISTRY_SITE_H_

#include <string>

#include "cachecore/status.h"
#include "fetcher/file_credentials.h"
#include "fetcher/http_engine.h"
#include "fetcher/http_transfer.h"
#include "fetcher/renewing_authorizer.h"

namespace fetcher {

class LocalFiles;

struct RegistryOptions {
  std::string auth_file;  // "": anonymous.
  bool plain_http = false;
};

struct RegistryConfig {
  std::string url;  // oci://REGISTRY/REPO/
  RegistryOptions options;
  std::string ca_file;  // "" is the system's.
  CredentialFiles certificate;
  const LocalFiles* local = nullptr;  // Opens its files; null: as they are.  Set for a site.

  std::string Registry() const;  // HOST[:PORT]
  std::string Repository() const;
  std::string ApiUrl() const;  // "https://HOST/v2/"
};

// `engine` outlives the site.
HttpSite MakeRegistrySite(const RegistryConfig& config, HttpEngine* engine);

cachecore::Result<BroughtCredentials> BringRegistryCredentials(const RegistryConfig& config,
                                                               const Renewal& renewal,
                                                               const Cancel& cancel);

}  // namespace fetcher

#endif  // FETCHER_REGISTRY_SITE_H_
