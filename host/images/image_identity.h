// ImageIdentity: which part of a URL's query names the object, and which is a signature.
//
// Model    a query selects content (versionId=2, generation=7) unless it is known to prove a
//          right: the parameters of AWS, Google, Azure and CloudFront signatures, each only
//          where the signature is complete.  What is not known to be one names the object: at
//          worst the same bytes are cached twice, and two objects never meet under one name.
//          Order and encoding stay as they were given.
// Errors   none.
// Threads  pure.
// See      docs/sources.md "What an object is"

#ifndef HOST_IMAGES_IMAGE_IDENTITY_H_
#define HOST_IMAGES_IMAGE_IDENTITY_H_

#include <string>

namespace host {

// `query`: "" or "?...".  Returns what is left of it without signatures, "" for nothing.
std::string IdentityOfQuery(const std::string& query);

// The header lines of `text`, a headers file, that may select content: all but those that are
// known to carry credentials or to describe the client.  "" for none.
std::string IdentityOfHeaders(const std::string& text);

}  // namespace host

#endif  // HOST_IMAGES_IMAGE_IDENTITY_H_
