// The C callbacks that libfuse calls: each passes its call on to FuseOps or FuseConnection.
//
// Model    the session's userdata is a FuseCallees.  What libfuse does not hand on comes from the
//          ThreadSlots of the calling thread: a TakenRequest, which Read fills in and an operation
//          finds; an ExpectedReply, around a reply that must have one size.
// Threads  as libfuse calls: operations on the thread that calls fuse_session_process_buf, with a
//          TakenRequest in its slot; I/O on the thread that receives or replies.

#ifndef FUSEFS_SERVER_FUSE_CALLBACKS_H_
#define FUSEFS_SERVER_FUSE_CALLBACKS_H_

#include <fuse_lowlevel.h>

#include "fusefs/server/fuse_connection.h"
#include "fusefs/server/fuse_ops.h"

namespace fusefs {

struct FuseCallees {
  FuseOps* ops;
  FuseConnection* connection;
};

const fuse_lowlevel_ops& OperationCallbacks();
fuse_custom_io IoCallbacks();

}  // namespace fusefs

#endif  // FUSEFS_SERVER_FUSE_CALLBACKS_H_
