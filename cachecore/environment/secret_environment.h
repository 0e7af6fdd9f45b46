// SecretEnvironment: the environment variables that are secrets, on their way to the fetcher.
//
// Model    AWS's keys, and proxies whose URL has a user.  The program that is given them takes them
//          out of its environment at once, and out of the memory where /proc/PID/environ shows
//          them.  A supervisor keeps them in a memory file, which it hands to each fetcher in its
//          descriptor store and never maps; so they are in no other process, in no argument and on
//          no disk, and outlive each fetcher.
// Errors   the errno of what can't be done with the memory file.
// Threads  Take: while no other thread reads the environment.  Otherwise immutable values.
// See      holdfast(1) ENVIRONMENT

#ifndef CACHECORE_ENVIRONMENT_SECRET_ENVIRONMENT_H_
#define CACHECORE_ENVIRONMENT_SECRET_ENVIRONMENT_H_

#include <map>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

class SecretEnvironment {
 public:
  // The name of the memory file in a descriptor store.
  static constexpr char kStoredName[] = "environment";

  SecretEnvironment() = default;
  ~SecretEnvironment();
  SecretEnvironment(SecretEnvironment&&) = default;
  SecretEnvironment& operator=(SecretEnvironment&&) = default;

  // Whether a variable of that name is one.
  static bool IsSecret(std::string_view name);
  // Whether Take would take any of AWS's.
  static bool IsSet();
  static SecretEnvironment Take();
  // What Store has written.
  static Result<SecretEnvironment> Load(int fd);

  // Sets the proxies again, for this process and those that it starts: what is set by a running
  // program is not where /proc/PID/environ shows it.
  void SetProxies() const;
  // An anonymous memory file, sealed.
  Result<UniqueFd> Store() const;
  bool empty() const { return values_.empty(); }
  // "" for one that is not set.
  std::string Get(const std::string& name) const;

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace cachecore

#endif  // CACHECORE_ENVIRONMENT_SECRET_ENVIRONMENT_H_
