// CheckRegistryPolicy: whether policy.json lets an image be used.
//
// Model    `skopeo copy` asks that file, `skopeo inspect` and the fetcher do not; so what it
//          rejects is refused here, and so is what it accepts by a signature alone, since
//          Holdfast checks no signatures.  Registries are
//          the transport "docker" there, layouts "oci".  The rule with the narrowest scope counts.
//          Without the file everything is accepted.
// Errors   EACCES rejected; ENOTSUP a signature is wanted; EBADMSG not such a file.  Each names the
//          file and the scope.
// Threads  thread-safe: no state.
// See      containers-policy.json(5); docs/sources.md, "Registries".

#ifndef HOST_REGISTRIES_REGISTRY_POLICY_H_
#define HOST_REGISTRIES_REGISTRY_POLICY_H_

#include <string>

#include "cachecore/base/status.h"
#include "host/registries/image_reference.h"

namespace host {

// The user's, else the machine's; "" when there is none.
std::string RegistryPolicyFile();

cachecore::Status CheckRegistryPolicy(const ImageReference& image);

}  // namespace host

#endif  // HOST_REGISTRIES_REGISTRY_POLICY_H_
