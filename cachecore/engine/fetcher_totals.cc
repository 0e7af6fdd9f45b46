#include "cachecore/engine/fetcher_totals.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <sstream>

namespace cachecore {
namespace {

constexpr char kOther[] = "other";
constexpr char kNoAnswer[] = "none";
constexpr char kRequests[] = "origin_requests ";
constexpr char kBytes[] = "origin_bytes ";
constexpr char kRetries[] = "retries ";
constexpr size_t kMaxWordSize = 255;

bool IsHost(const std::string& text) {
  return !text.empty() && text.size() <= kMaxWordSize &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return c < 0x80 &&
                  (std::isalnum(c) != 0 ||
                   std::string(".-_:[]%").find(static_cast<char>(c)) != std::string::npos);
         });
}

bool IsCode(const std::string& text) {
  return text == kNoAnswer || (text.size() == 3 && text[0] >= '1' && text[0] <= '9' &&
                               std::isdigit(static_cast<unsigned char>(text[1])) != 0 &&
                               std::isdigit(static_cast<unsigned char>(text[2])) != 0);
}

bool IsCause(const std::string& text) {
  return !text.empty() && text.size() <= kMaxWordSize &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

// `word`, if it is in `known` or may still be put there.
std::string Bounded(const std::string& word, size_t max, std::set<std::string>* known) {
  if (known->contains(word)) return word;
  if (known->size() >= max) return kOther;
  known->insert(word);
  return word;
}

}  // namespace

FetcherTotals::FetcherTotals(Totals* totals) : totals_(totals) {
  if (totals == nullptr) return;
  for (const auto& [name, value] : totals->All()) {
    std::istringstream words(name);
    std::string kind, word, code;
    words >> kind >> word >> code;
    if (word.empty() || word == kOther) continue;
    kind += ' ';
    if (kind == kRequests || kind == kBytes) hosts_.insert(word);
    if (kind == kRequests && code != kOther) codes_[word].insert(code);
    if (kind == kRetries) causes_.insert(word);
  }
}

std::string FetcherTotals::HostOf(const std::string& host) {
  return Bounded(host, kMaxHosts, &hosts_);
}

int FetcherTotals::Take(const wire::CountCommand& command) {
  const std::vector<std::string>& labels = command.labels;
  MutexLock lock(&mu_);
  std::string name;
  if (command.name == "requests" && labels.size() == 2 && IsHost(labels[0]) && IsCode(labels[1])) {
    const std::string host = HostOf(labels[0]);
    name = kRequests + host + " " + Bounded(labels[1], kMaxCodes, &codes_[host]);
  } else if (command.name == "bytes" && labels.size() == 1 && IsHost(labels[0])) {
    name = kBytes + HostOf(labels[0]);
  } else if (command.name == "retries" && labels.size() == 1 && IsCause(labels[0])) {
    name = kRetries + Bounded(labels[0], kMaxCauses, &causes_);
  } else {
    return -EINVAL;
  }
  if (totals_ == nullptr) return 0;
  auto found = counts_.find(name);
  if (found == counts_.end()) found = counts_.emplace(name, totals_->Find(name)).first;
  found->second.Add(command.more);
  return 0;
}

}  // namespace cachecore
