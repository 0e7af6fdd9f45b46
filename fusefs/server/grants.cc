#include "fusefs/server/grants.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "cachecore/base/hex.h"
#include "cachecore/base/unique_fd.h"

namespace fusefs {

using cachecore::Duration;
using cachecore::MutexLock;
using cachecore::Result;
using cachecore::Status;

namespace {

constexpr char kGrantsMagic[] = "holdfast-grants-1";

}  // namespace

Result<std::unique_ptr<Grants>> Grants::Open(std::string path, const cachecore::Clock& clock,
                                             bool resumed) {
  std::unique_ptr<Grants> grants(new Grants(std::move(path), clock));
  if (resumed) {
    grants->Load();
  } else {
    RETURN_IF_ERROR(grants->Save(Table()));
  }
  return grants;
}

std::shared_ptr<const Grants::Table> Grants::Now() const {
  MutexLock lock(&mu_);
  return table_;
}

Status Grants::Change(const Edit& change) {
  MutexLock writing(&write_mu_);
  const auto next = std::make_shared<Table>(*Now());
  change(next.get());
  RETURN_IF_ERROR(Save(*next));
  NoteSaved(Status());
  Show(next);
  return Status();
}

void Grants::TakeBack(const Edit& change) {
  MutexLock writing(&write_mu_);
  const auto next = std::make_shared<Table>(*Now());
  change(next.get());
  NoteSaved(Save(*next));
  Show(next);
}

// Says it once a spell.
void Grants::NoteSaved(const Status& saved) {
  LOG_IF(ERROR, !saved.ok() && !unsaved_) << saved.message() << "; it is tried again every second";
  LOG_IF(WARNING, saved.ok() && unsaved_) << path_ << " can be written again";
  unsaved_ = !saved.ok();
}

void Grants::Show(std::shared_ptr<const Table> table) {
  MutexLock lock(&mu_);
  table_ = std::move(table);
}

Result<uint64_t> Grants::Give(const GrantName& name, const std::function<void(Grant*)>& give) {
  uint64_t id = 0;
  RETURN_IF_ERROR(Change([&](Table* table) {
    Grant& grant = table->by_name[name];
    if (grant.id == 0) {
      grant.id = table->next_id++;
      table->by_id[grant.id] = name;
    }
    give(&grant);
    id = grant.id;
  }));
  return id;
}

Result<uint64_t> Grants::Keep(const GrantName& name) {
  return Give(name, [](Grant* grant) { grant->kept = true; });
}

Result<uint64_t> Grants::Lend(const GrantName& name, Duration time) {
  return Give(name, [until = clock_.Now() + time](Grant* grant) {
    grant->lent_until = std::max(grant->lent_until, until);
  });
}

void Grants::Release(const GrantName& name) {
  if (!Now()->by_name.contains(name)) return;
  TakeBack([&](Table* table) {
    const auto it = table->by_name.find(name);
    if (it == table->by_name.end()) return;
    table->by_id.erase(it->second.id);
    table->by_name.erase(it);
  });
}

void Grants::Expire() {
  bool ended = false;
  {
    MutexLock writing(&write_mu_);
    ended = unsaved_;
  }
  const std::shared_ptr<const Table> now = Now();
  for (const auto& [name, grant] : now->by_name) ended = ended || !IsGood(grant);
  if (!ended) return;
  TakeBack([&](Table* table) {
    for (auto it = table->by_name.begin(); it != table->by_name.end();) {
      if (IsGood(it->second)) {
        ++it;
        continue;
      }
      table->by_id.erase(it->second.id);
      it = table->by_name.erase(it);
    }
  });
}

bool Grants::Has(const GrantName& name) const {
  const std::shared_ptr<const Table> now = Now();
  const auto it = now->by_name.find(name);
  return it != now->by_name.end() && IsGood(it->second);
}

bool Grants::HasVolume(const std::string& volume) const {
  const std::shared_ptr<const Table> now = Now();
  for (auto it = now->by_name.lower_bound({volume, ""});
       it != now->by_name.end() && it->first.volume == volume; ++it) {
    if (IsGood(it->second)) return true;
  }
  return false;
}

bool Grants::HasAny() const {
  const std::shared_ptr<const Table> now = Now();
  return std::any_of(now->by_name.begin(), now->by_name.end(),
                     [this](const auto& entry) { return IsGood(entry.second); });
}

std::optional<GrantName> Grants::Find(uint64_t id) const {
  const std::shared_ptr<const Table> now = Now();
  const auto it = now->by_id.find(id);
  if (it == now->by_id.end() || !IsGood(now->by_name.at(it->second))) return std::nullopt;
  return it->second;
}

// Complete or not there at all, whenever we are killed.
Status Grants::Save(const Table& table) const {
  std::ostringstream text;
  text << kGrantsMagic << " " << table.next_id << "\n";
  for (const auto& [name, grant] : table.by_name) {
    text << grant.id << " " << grant.kept << " " << grant.lent_until.count() << " "
         << cachecore::HexText(name.volume) << " " << cachecore::HexText(name.object) << "\n";
  }
  const std::string bytes = text.str();
  const std::string fresh = path_ + ".new";
  const cachecore::UniqueFd file(
      open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  const ssize_t wrote = file.valid() ? write(file.get(), bytes.data(), bytes.size()) : -1;
  if (wrote >= 0 && wrote != static_cast<ssize_t>(bytes.size())) errno = ENOSPC;
  if (wrote != static_cast<ssize_t>(bytes.size()) || rename(fresh.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    if (file.valid()) unlink(fresh.c_str());
    return Status::FromErrno(error, "writing down in " + path_ + " what may be looked up");
  }
  return Status();
}

void Grants::Load() {
  std::ifstream file(path_);
  auto table = std::make_shared<Table>();
  std::string magic;
  if (!(file >> magic >> table->next_id) || magic != kGrantsMagic) {
    // Of an older version, or lost.  A name is found only when a mount has asked for it.
    LOG(WARNING) << path_ << " is missing or damaged: file mounts must be mounted again";
    // Ids that were given must not come to mean another object.
    table->next_id = static_cast<uint64_t>(clock_.Now().count());
    MutexLock writing(&write_mu_);
    NoteSaved(Save(*table));
  }
  uint64_t id;
  int64_t until;
  bool kept;
  std::string volume_hex, object_hex;
  while (file >> id >> kept >> until >> volume_hex >> object_hex) {
    const std::optional<std::string> volume = cachecore::BytesOfHex(volume_hex);
    const std::optional<std::string> object = cachecore::BytesOfHex(object_hex);
    // The stream gives no empty words.
    if (!volume || !object || id >= table->next_id) continue;
    const GrantName name{*volume, *object};
    table->by_name[name] = {id, kept, Duration(until)};
    table->by_id[id] = name;
  }
  Show(std::move(table));
}

}  // namespace fusefs
