// Process limits: what every Holdfast program does about its rlimits before anything else, and
// threads where they are reached.
//
// Model    The soft limit on descriptors is raised to the hard one: objects in use hold one each.
//          The limit on a file's size (ulimit -f) is raised likewise; a write beyond what is left
//          of it is an error (EFBIG) and no signal.
// Errors   EFBIG: the hard limit on a file's size is less than what the metadata needs.  EAGAIN: no
//          thread can be started; the message has the cure.
// Threads  the limits: call it before there are others.

#ifndef CACHECORE_SYSTEM_PROCESS_LIMITS_H_
#define CACHECORE_SYSTEM_PROCESS_LIMITS_H_

#include <functional>
#include <string>
#include <thread>

#include "cachecore/base/status.h"

namespace cachecore {

// For programs that keep a cache, or start those that do.
Status RaiseProcessLimits();
// The same for programs that write nothing large.
void RaiseDescriptorLimit();

// For threads that others can have us start at any time: the constructor of std::thread throws.
// `purpose`, for people, follows "a thread for".
Result<std::thread> StartThread(const std::string& purpose, std::function<void()> work);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_PROCESS_LIMITS_H_
