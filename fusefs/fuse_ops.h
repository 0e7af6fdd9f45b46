// The FUSE operations of FuseServer: decode, ask the Cache, reply.  No policy.

#ifndef FUSEFS_FUSE_OPS_H_
#define FUSEFS_FUSE_OPS_H_

#include <fuse_lowlevel.h>

#include "cachecore/cache.h"

namespace fusefs {

const fuse_lowlevel_ops& FuseOperations();

// Answers the read `unique` with bytes of a data file, by splice where the kernel can; with EIO if
// the file does not give all of them: false then.
bool ReplySlice(fuse_req_t req, uint64_t unique, const cachecore::FileSlice& slice);

}  // namespace fusefs

#endif  // FUSEFS_FUSE_OPS_H_
