#include "snapshotter/snapshot_service.h"

#include <glog/logging.h>
#include <google/protobuf/unknown_field_set.h>

#include <cerrno>
#include <string>
#include <vector>

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr int kInfosPerMessage = 100;
constexpr int64_t kNanoseconds = 1'000'000'000;

grpc::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOENT:
      return grpc::StatusCode::NOT_FOUND;
    case EEXIST:
      return grpc::StatusCode::ALREADY_EXISTS;
    case EINVAL:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case EBUSY:
    case EPERM:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case EIO:
    case ETIMEDOUT:
      return grpc::StatusCode::UNAVAILABLE;
    case EBADMSG:
      return grpc::StatusCode::DATA_LOSS;
    default:
      return grpc::StatusCode::UNKNOWN;
  }
}

grpc::Status ToGrpc(const Status& status, const char* call, const std::string& key) {
  if (status.ok()) return grpc::Status::OK;
  // Being asked for what is not there, or is there, belongs to containerd's way of working.
  const bool ordinary = status.error() == ENOENT || status.error() == EEXIST;
  if (ordinary) {
    VLOG(1) << call << " " << key << ": " << status.message();
  } else {
    LOG(WARNING) << call << " " << key << ": " << status.message();
  }
  return {CodeOf(status.error()), status.message()};
}

Labels LabelsOf(const google::protobuf::Map<std::string, std::string>& labels) {
  return {labels.begin(), labels.end()};
}

// A field of containerd 2.2, newer than the interface's description that this is built with.
std::string CommitParentOf(const api::CommitSnapshotRequest& request) {
  constexpr int kParent = 5;
  const google::protobuf::UnknownFieldSet& fields =
      request.GetReflection()->GetUnknownFields(request);
  std::string parent;
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::UnknownField& field = fields.field(i);
    if (field.number() == kParent &&
        field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
      parent = field.length_delimited();
    }
  }
  return parent;
}

api::Kind ToApi(Kind kind) {
  switch (kind) {
    case Kind::kView:
      return api::VIEW;
    case Kind::kActive:
      return api::ACTIVE;
    case Kind::kCommitted:
      return api::COMMITTED;
  }
  return api::UNKNOWN;
}

void SetTime(int64_t ns, google::protobuf::Timestamp* time) {
  time->set_seconds(ns / kNanoseconds);
  time->set_nanos(static_cast<int32_t>(ns % kNanoseconds));
}

void SetInfo(const SnapshotRecord& record, api::Info* info) {
  info->set_name(record.name);
  info->set_parent(record.parent);
  info->set_kind(ToApi(record.kind));
  SetTime(record.created_ns, info->mutable_created_at());
  SetTime(record.updated_ns, info->mutable_updated_at());
  info->mutable_labels()->insert(record.labels.begin(), record.labels.end());
}

// Any of the three responses that carry mounts.
template <typename Response>
grpc::Status ToMounts(const Result<std::vector<MountSpec>>& mounts, const char* call,
                      const std::string& key, Response* response) {
  if (!mounts.ok()) return ToGrpc(mounts.status(), call, key);
  for (const MountSpec& spec : *mounts) {
    auto* const mount = response->add_mounts();
    mount->set_type(spec.type);
    mount->set_source(spec.source);
    for (const std::string& option : spec.options) mount->add_options(option);
  }
  return grpc::Status::OK;
}

}  // namespace

grpc::Status SnapshotService::Prepare(grpc::ServerContext*,
                                      const api::PrepareSnapshotRequest* request,
                                      api::PrepareSnapshotResponse* response) {
  return ToMounts(store_->Prepare(request->key(), request->parent(), LabelsOf(request->labels())),
                  "Prepare", request->key(), response);
}

grpc::Status SnapshotService::View(grpc::ServerContext*, const api::ViewSnapshotRequest* request,
                                   api::ViewSnapshotResponse* response) {
  return ToMounts(store_->View(request->key(), request->parent(), LabelsOf(request->labels())),
                  "View", request->key(), response);
}

grpc::Status SnapshotService::Mounts(grpc::ServerContext*, const api::MountsRequest* request,
                                     api::MountsResponse* response) {
  return ToMounts(store_->Mounts(request->key()), "Mounts", request->key(), response);
}

grpc::Status SnapshotService::Commit(grpc::ServerContext*,
                                     const api::CommitSnapshotRequest* request,
                                     google::protobuf::Empty*) {
  return ToGrpc(store_->Commit(request->name(), request->key(), LabelsOf(request->labels()),
                               CommitParentOf(*request)),
                "Commit", request->key());
}

grpc::Status SnapshotService::Remove(grpc::ServerContext*,
                                     const api::RemoveSnapshotRequest* request,
                                     google::protobuf::Empty*) {
  return ToGrpc(store_->Remove(request->key()), "Remove", request->key());
}

grpc::Status SnapshotService::Stat(grpc::ServerContext*, const api::StatSnapshotRequest* request,
                                   api::StatSnapshotResponse* response) {
  const Result<SnapshotRecord> record = store_->Stat(request->key());
  if (!record.ok()) return ToGrpc(record.status(), "Stat", request->key());
  SetInfo(*record, response->mutable_info());
  return grpc::Status::OK;
}

grpc::Status SnapshotService::Update(grpc::ServerContext*,
                                     const api::UpdateSnapshotRequest* request,
                                     api::UpdateSnapshotResponse* response) {
  const std::vector<std::string> paths(request->update_mask().paths().begin(),
                                       request->update_mask().paths().end());
  const Result<SnapshotRecord> record =
      store_->Update(request->info().name(), LabelsOf(request->info().labels()), paths);
  if (!record.ok()) return ToGrpc(record.status(), "Update", request->info().name());
  SetInfo(*record, response->mutable_info());
  return grpc::Status::OK;
}

grpc::Status SnapshotService::List(grpc::ServerContext*, const api::ListSnapshotsRequest* request,
                                   grpc::ServerWriter<api::ListSnapshotsResponse>* writer) {
  const Result<Filter> filter =
      Filter::Parse({request->filters().begin(), request->filters().end()});
  if (!filter.ok()) return ToGrpc(filter.status(), "List", "");
  api::ListSnapshotsResponse response;
  for (const SnapshotRecord& record : store_->List(*filter)) {
    SetInfo(record, response.add_info());
    if (response.info_size() < kInfosPerMessage) continue;
    if (!writer->Write(response)) return grpc::Status::CANCELLED;
    response.Clear();
  }
  if (response.info_size() > 0 && !writer->Write(response)) return grpc::Status::CANCELLED;
  return grpc::Status::OK;
}

grpc::Status SnapshotService::Usage(grpc::ServerContext*, const api::UsageRequest* request,
                                    api::UsageResponse* response) {
  const Result<DiskUsage> usage = store_->Usage(request->key());
  if (!usage.ok()) return ToGrpc(usage.status(), "Usage", request->key());
  response->set_size(usage->bytes);
  response->set_inodes(usage->inodes);
  return grpc::Status::OK;
}

grpc::Status SnapshotService::Cleanup(grpc::ServerContext*, const api::CleanupRequest*,
                                      google::protobuf::Empty*) {
  return ToGrpc(store_->Cleanup(), "Cleanup", "");
}

}  // namespace snapshotter
