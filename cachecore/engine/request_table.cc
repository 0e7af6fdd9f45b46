#include "cachecore/engine/request_table.h"

#include <glog/logging.h>

#include <algorithm>

namespace cachecore {

Request* RequestTable::Add(Request request) {
  const MsgId id = request.id;
  auto [it, inserted] = requests_.emplace(id, std::make_unique<Request>(std::move(request)));
  CHECK(inserted) << "msg_id " << id.value << " recurs";
  return it->second.get();
}

Request* RequestTable::Find(MsgId id) {
  auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : it->second.get();
}

std::unique_ptr<Request> RequestTable::Take(MsgId id) {
  auto it = requests_.find(id);
  if (it == requests_.end()) return nullptr;
  std::unique_ptr<Request> request = std::move(it->second);
  requests_.erase(it);
  new_demand_.erase(id);
  new_background_.erase(id);
  return request;
}

void RequestTable::Publish(MsgId id) {
  Request* request = Find(id);
  CHECK(request != nullptr);
  request->published = true;
  (request->background ? new_background_ : new_demand_).insert(id);
}

void RequestTable::Restore(const std::function<bool(const Request&)>& wanted) {
  for (const auto& [id, request] : requests_) {
    if (request->published && wanted(*request)) Publish(id);
  }
}

void RequestTable::Promote(Request* request) {
  if (!request->background) return;
  request->background = false;
  if (new_background_.erase(request->id) > 0) new_demand_.insert(request->id);
}

Request* RequestTable::Select(const std::function<bool(Request&)>& deliverable) {
  Request* request = SelectFrom(new_demand_, deliverable);
  return request != nullptr ? request : SelectFrom(new_background_, deliverable);
}

Request* RequestTable::SelectFrom(const std::set<MsgId>& ids,
                                  const std::function<bool(Request&)>& deliverable) {
  const auto start = ids.lower_bound(cursor_);
  for (auto it = start; it != ids.end(); ++it) {
    if (deliverable(*requests_.at(*it))) return requests_.at(*it).get();
  }
  for (auto it = ids.begin(); it != start; ++it) {
    if (deliverable(*requests_.at(*it))) return requests_.at(*it).get();
  }
  return nullptr;
}

bool RequestTable::HasNewLike(const std::function<bool(const Request&)>& wanted) const {
  const auto accepts = [&](MsgId id) { return wanted(*requests_.at(id)); };
  return std::any_of(new_demand_.begin(), new_demand_.end(), accepts) ||
         std::any_of(new_background_.begin(), new_background_.end(), accepts);
}

void RequestTable::MarkDelivered(Request* request, Generation generation) {
  new_demand_.erase(request->id);
  new_background_.erase(request->id);
  request->delivered = generation;
  cursor_ = MsgId{request->id.value + 1};  // Wraps with the id space, as the kernel's does.
}

}  // namespace cachecore
