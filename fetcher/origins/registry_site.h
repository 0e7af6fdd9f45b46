// Registries as origins: where a repository's blobs are, and the tokens that authorize requests.
//
// Model    oci://REGISTRY/REPO/ is https://REGISTRY/v2/REPO/blobs/, and http only if asked for, by
//          plain_http or as oci+http://.
//          Credentials are brought as the registry's challenge says: for Basic the user and
//          password themselves; for Bearer a token of the service that the challenge names, which
//          is given them, over TLS unless plain http was asked for.  The auth file, or the helper
//          that it names, is read again each time, so renewed credentials take effect at once.
// Errors   see RenewingAuthorizer; sentences name the auth file and the host, nothing secret.
// Threads  MakeRegistrySite on the event loop; BringRegistryCredentials blocks.
// See      docs/sources.md "Registries"; the distribution project's token authentication.

#ifndef FETCHER_ORIGINS_REGISTRY_SITE_H_
#define FETCHER_ORIGINS_REGISTRY_SITE_H_

#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "fetcher/auth/https_credentials.h"
#include "fetcher/auth/renewing_authorizer.h"
#include "fetcher/http/http_easy.h"
#include "fetcher/http/http_engine.h"
#include "fetcher/http/http_transfer.h"
#include "fetcher/source/origin_options.h"

namespace fetcher {

class LocalFiles;

struct RegistryConfig {
  std::string url;  // oci://REGISTRY/REPO/, or oci+http:// for one without TLS.
  RegistryOptions options;
  HttpRoute route;
  CredentialFiles certificate;
  const LocalFiles* local = nullptr;  // Opens its files; null: as they are.  Set for a site.

  bool IsPlainHttp() const;
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

#endif  // FETCHER_ORIGINS_REGISTRY_SITE_H_
