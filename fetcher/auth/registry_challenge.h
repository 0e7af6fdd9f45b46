// What registries and their token services say about being let in: challenges (WWW-Authenticate,
// RFC 9110, 11.6.1), errors and tokens.  Pure.
//
// Errors   what can't be understood is left out; EPROTO for an answer without a token or
//          with one that no header can carry.  No message
//          quotes any of it.

#ifndef FETCHER_AUTH_REGISTRY_CHALLENGE_H_
#define FETCHER_AUTH_REGISTRY_CHALLENGE_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"

namespace fetcher {

struct Challenge {
  std::string scheme;                             // In lower case: "bearer", "basic".
  std::map<std::string, std::string> parameters;  // Names in lower case; values unquoted.
};

// `header` may be several header fields joined by commas.
std::vector<Challenge> ParseChallenges(std::string_view header);

// The first code in the body of a registry's error, such as BLOB_UNKNOWN; "" when there is none.
std::string ParseErrorCode(std::string_view body);

struct RegistryToken {
  std::string token;  // Fit for a header line.
  cachecore::Duration lifetime{0};
};
// What a token service answers.
cachecore::Result<RegistryToken> ParseToken(std::string_view body);

}  // namespace fetcher

#endif  // FETCHER_AUTH_REGISTRY_CHALLENGE_H_
