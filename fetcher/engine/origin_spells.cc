#include "fetcher/engine/origin_spells.h"

#include <glog/logging.h>

#include "cachecore/base/hex.h"
#include "cachecore/logging/log_fields.h"
#include "cachecore/url/url.h"

namespace fetcher {

using cachecore::Duration;
using cachecore::LogAbout;
using cachecore::LogKind;
using cachecore::WithoutControls;

namespace {

std::string PlaceOf(const std::string& origin) {
  const std::optional<cachecore::Url> url = cachecore::ParseUrl(origin);
  return url && !url->authority.empty() ? url->Place() : origin;
}

}  // namespace

void OriginSpells::Failed(const std::string& origin, const std::string& cause, Duration now) {
  const std::string place = PlaceOf(origin);
  const auto [at, is_new] = spells_.try_emplace(place, Spell{now, now});
  Spell& spell = at->second;
  spell.last = now;
  ++spell.failures;
  const bool serves_no_more = spell.has_served && now - spell.served >= kCalm;
  if (is_new || serves_no_more) {
    spell.has_served = false;
    LOG(WARNING) << LogAbout{.kind = LogKind::kOriginFails, .origin = place} << "origin "
                 << WithoutControls(place) << " fails: " << WithoutControls(cause);
  }
}

void OriginSpells::Served(const std::string& origin, Duration now) {
  if (spells_.empty()) return;
  const auto at = spells_.find(PlaceOf(origin));
  if (at == spells_.end()) return;
  at->second.has_served = true;
  at->second.served = now;
  if (now - at->second.last < kCalm) return;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - at->second.since);
  LOG(INFO) << LogAbout{.kind = LogKind::kOriginServes, .origin = at->first} << "origin "
            << WithoutControls(at->first) << " serves again; " << at->second.failures
            << " requests failed in " << seconds.count() << " s";
  spells_.erase(at);
}

}  // namespace fetcher
