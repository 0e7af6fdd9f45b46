#include "fusefs/server/fuse_callbacks.h"

#include <glog/logging.h>

#include "fusefs/server/thread_slot.h"

namespace fusefs {

namespace {

FuseOps& OpsOf(fuse_req_t req) { return *static_cast<FuseCallees*>(fuse_req_userdata(req))->ops; }

FuseConnection& ConnectionOf(void* userdata) {
  return *static_cast<FuseCallees*>(userdata)->connection;
}

FuseRequest RequestOf(fuse_req_t req) {
  const TakenRequest* taken = ThreadSlot<TakenRequest>::Current();
  CHECK(taken != nullptr) << "libfuse calls an operation outside fuse_session_process_buf";
  return {req, taken->unique, taken->resent, fuse_req_ctx(req)->pid};
}

}  // namespace

const fuse_lowlevel_ops& OperationCallbacks() {
  static const fuse_lowlevel_ops ops = [] {
    fuse_lowlevel_ops table = {};
    table.init = [](void* userdata, fuse_conn_info* conn) {
      static_cast<FuseCallees*>(userdata)->ops->Init(conn);
    };
    table.lookup = [](fuse_req_t req, fuse_ino_t parent, const char* name) {
      OpsOf(req).Lookup(RequestOf(req), parent, name);
    };
    table.getattr = [](fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
      OpsOf(req).GetAttr(RequestOf(req), node);
    };
    table.open = [](fuse_req_t req, fuse_ino_t, fuse_file_info*) {
      OpsOf(req).Open(RequestOf(req));
    };
    table.read = [](fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info*) {
      OpsOf(req).Read(RequestOf(req), node, size, offset);
    };
    table.readdir = [](fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
                       fuse_file_info*) { OpsOf(req).ReadDir(RequestOf(req), node, size, offset); };
    table.statfs = [](fuse_req_t req, fuse_ino_t) { OpsOf(req).StatFs(RequestOf(req)); };
    return table;
  }();
  return ops;
}

// Member by member: libfuse 3.17 has one more than 3.14.
fuse_custom_io IoCallbacks() {
  fuse_custom_io io = {};
  io.writev = [](int device, iovec* iov, int count, void* userdata) {
    return ConnectionOf(userdata).Write(device, iov, count, ThreadSlot<ExpectedReply>::Current());
  };
  io.read = [](int device, void* buffer, size_t size, void* userdata) {
    return ConnectionOf(userdata).Read(device, buffer, size, ThreadSlot<TakenRequest>::Current());
  };
  io.splice_send = [](int in, off_t* in_offset, int out, off_t* out_offset, size_t size,
                      unsigned flags, void* userdata) {
    return ConnectionOf(userdata).Splice(in, in_offset, out, out_offset, size, flags,
                                         ThreadSlot<ExpectedReply>::Current());
  };
  return io;
}

}  // namespace fusefs
