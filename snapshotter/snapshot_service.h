// SnapshotService: SnapshotStore behind containerd's gRPC interface.
//
// Model    a translation: messages to calls, errno to status codes.  Names come from containerd
//          with their namespace in them ("k8s.io/7/..."), so the header containerd-namespace is
//          not asked: containerd's garbage collection sends none.
// Errors   ENOENT NOT_FOUND, EEXIST ALREADY_EXISTS, EINVAL INVALID_ARGUMENT, EBUSY and EPERM
//          FAILED_PRECONDITION, ETIMEDOUT and EIO UNAVAILABLE, EBADMSG DATA_LOSS, else UNKNOWN.
// Threads  thread-safe.
// See      containerd 1.6, api/services/snapshots/v1/snapshots.proto

#ifndef SNAPSHOTTER_SNAPSHOT_SERVICE_H_
#define SNAPSHOTTER_SNAPSHOT_SERVICE_H_

#include "github.com/containerd/containerd/api/services/snapshots/v1/snapshots.grpc.pb.h"
#include "snapshotter/snapshot_store.h"

namespace snapshotter {

namespace api = ::containerd::services::snapshots::v1;

class SnapshotService final : public api::Snapshots::Service {
 public:
  explicit SnapshotService(SnapshotStore* store) : store_(store) {}

  grpc::Status Prepare(grpc::ServerContext*, const api::PrepareSnapshotRequest*,
                       api::PrepareSnapshotResponse*) override;
  grpc::Status View(grpc::ServerContext*, const api::ViewSnapshotRequest*,
                    api::ViewSnapshotResponse*) override;
  grpc::Status Mounts(grpc::ServerContext*, const api::MountsRequest*,
                      api::MountsResponse*) override;
  grpc::Status Commit(grpc::ServerContext*, const api::CommitSnapshotRequest*,
                      google::protobuf::Empty*) override;
  grpc::Status Remove(grpc::ServerContext*, const api::RemoveSnapshotRequest*,
                      google::protobuf::Empty*) override;
  grpc::Status Stat(grpc::ServerContext*, const api::StatSnapshotRequest*,
                    api::StatSnapshotResponse*) override;
  grpc::Status Update(grpc::ServerContext*, const api::UpdateSnapshotRequest*,
                      api::UpdateSnapshotResponse*) override;
  grpc::Status List(grpc::ServerContext*, const api::ListSnapshotsRequest*,
                    grpc::ServerWriter<api::ListSnapshotsResponse>*) override;
  grpc::Status Usage(grpc::ServerContext*, const api::UsageRequest*, api::UsageResponse*) override;
  grpc::Status Cleanup(grpc::ServerContext*, const api::CleanupRequest*,
                       google::protobuf::Empty*) override;

 private:
  SnapshotStore* const store_;
};

}  // namespace snapshotter

#endif  // SNAPSHOTTER_SNAPSHOT_SERVICE_H_
