#include "fusefs/grants.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "cachecore/unique_fd.h"

namespace fusefs {

using cachecore::Duration;
using cachecore::MutexLock;
using cachecore::Result;
using cachecore::Status;

namespace {

constexpr char kGrantsMagic[] = "holdfast-grants-1";

std::string Hex(const std::string& bytes) {
  static const char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::optional<std::string> Unhex(const std::string& text) {
  if (text.empty() || text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (size_t i = 0; i < text.size(); i += 2) {
    unsigned byte = 0;
    const char* end = text.data() + i + 2;
    const auto [stopped, error] = std::from_chars(text.data() + i, end, byte, 16);
    if (error != std::errc() || stopped != end) return std::nullopt;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

}  // namespace

Result<std::unique_ptr<Grants>> Grants::Open(std::string path, const cachecore::Clock& clock,
                                             bool resumed) {
  std::unique_ptr<Grants> grants(new Grants(std::move(path), clock));
  if (resumed) {
    RETURN_IF_ERROR(grants->Load());
  } else {
    RETURN_IF_ERROR(grants->Save(Table()));
  }
  return grants;
}

std::shared_ptr<const Grants::Table> Grants::Now() const {
  MutexLock lock(&mu_);
  return table_;
}

Status Grants::Change(const std::function<void(Table*)>& change) {
  MutexLock writing(&write_mu_);
  const auto next = std::make_shared<Table>(*Now());
  change(next.get());
  RETURN_IF_ERROR(Save(*next));
  MutexLock lock(&mu_);
  table_ = next;
  return Status();
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

Status Grants::Release(const GrantName& name) {
  if (!Now()->by_name.contains(name)) return Status();
  return Change([&](Table* table) {
    const auto it = table->by_name.find(name);
    if (it == table->by_name.end()) return;
    table->by_id.erase(it->second.id);
    table->by_name.erase(it);
  });
}

Status Grants::Expire() {
  bool ended = false;
  const std::shared_ptr<const Table> now = Now();
  for (const auto& [name, grant] : now->by_name) ended = ended || !IsGood(grant);
  if (!ended) return Status();
  return Change([&](Table* table) {
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
         << Hex(name.volume) << " " << Hex(name.object) << "\n";
  }
  const std::string bytes = text.str();
  const std::string fresh = path_ + ".new";
  const cachecore::UniqueFd file(
      open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid() ||
      write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) ||
      rename(fresh.c_str(), path_.c_str()) != 0) {
    return Status::FromErrno(errno == 0 ? ENOSPC : errno,
                             "writing down in " + path_ + " what may be looked up");
  }
  return Status();
}

Status Grants::Load() {
  std::ifstream file(path_);
  auto table = std::make_shared<Table>();
  std::string magic;
  if (!(file >> magic >> table->next_id) || magic != kGrantsMagic) {
    // Of an older version, or lost.  Nothing may be found that nobody is known to have asked for.
    LOG(WARNING) << path_ << " is missing or damaged: file mounts must be mounted again";
    // Ids that were given must not come to mean another object.
    table->next_id = static_cast<uint64_t>(clock_.Now().count());
    RETURN_IF_ERROR(Save(*table));
  }
  uint64_t id;
  int64_t until;
  bool kept;
  std::string volume_hex, object_hex;
  while (file >> id >> kept >> until >> volume_hex >> object_hex) {
    const std::optional<std::string> volume = Unhex(volume_hex);
    const std::optional<std::string> object = Unhex(object_hex);
    if (!volume || !object || id >= table->next_id) continue;
    const GrantName name{*volume, *object};
    table->by_name[name] = {id, kept, Duration(until)};
    table->by_id[id] = name;
  }
  MutexLock lock(&mu_);
  table_ = table;
  return Status();
}

}  // namespace fusefs
