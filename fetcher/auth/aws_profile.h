// The files in which AWS's tools keep profiles: ~/.aws/credentials and ~/.aws/config.
//
// Model    "[section]" lines and "name = value" lines; '#' and ';' begin comments; indented lines,
//          which belong to nested settings, are passed over.
// Threads  pure.

#ifndef FETCHER_AUTH_AWS_PROFILE_H_
#define FETCHER_AUTH_AWS_PROFILE_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/status.h"

namespace fetcher {

using AwsProfile = std::map<std::string, std::string>;

// The settings of the section; none if it is not there.
AwsProfile ParseAwsProfile(std::string_view text, std::string_view section);

// A command line's words: separated by blanks, with '...' and "..." around blanks, as a shell has
// them but without anything else of a shell.  EINVAL: a quote that does not end, or no word at all.
cachecore::Result<std::vector<std::string>> SplitCommand(std::string_view command);

}  // namespace fetcher

#endif  // FETCHER_AUTH_AWS_PROFILE_H_
