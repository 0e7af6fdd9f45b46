// BackingName: where the kernel's cachefiles keeps an object's file, below the directory of its
// cache, and which object a file there is of.
//
// Model    cache/I<volume>/@xx/<name>: xx is the low byte of a hash of both keys, and <name> is the
//          cookie, with a letter before it that tells how it is written: D as it is, S and T as
//          32-bit words in hexadecimal, E in a base64 of the kernel's own.
// Errors   ReadNumber: the errno of the file system.
// Threads  thread-safe: no state.
// See      docs/cachefiles-compat.md.

#ifndef FUSEFS_CACHEFILES_BACKING_NAME_H_
#define FUSEFS_CACHEFILES_BACKING_NAME_H_

#include <string>
#include <string_view>

#include "cachecore/base/status.h"
#include "cachecore/values/ids.h"

namespace fusefs {

struct BackingName {
  std::string volume;   // "I<volume>".
  std::string fan_out;  // "@xx".
  std::string file;
};

// REQUIRES: keys of legal lengths, which are not empty.
BackingName BackingNameOf(std::string_view volume, std::string_view cookie);

// The object whose number a file carries as an extended attribute; 0 without one, or with one that
// is none of ours.
cachecore::Result<cachecore::ObjectNumber> ReadNumber(int file);
// The same; 0 also where it cannot be read.
cachecore::ObjectNumber NumberOf(int file);
bool SetNumber(int file, cachecore::ObjectNumber number);

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_BACKING_NAME_H_
