// NamedOrigin: an origin that has a URL and brings nothing, for what only decides between origins.
//
// Threads  thread-compatible.

#ifndef TESTS_FETCHER_ENGINE_NAMED_ORIGIN_H_
#define TESTS_FETCHER_ENGINE_NAMED_ORIGIN_H_

#include <memory>
#include <string>
#include <utility>

#include "fetcher/origins/source_table.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

class NamedBackend final : public Backend {
 public:
  explicit NamedBackend(std::string base) : base_(std::move(base)) {}
  std::unique_ptr<Transfer> Probe(const std::string&, bool, ProbeDone) override { return nullptr; }
  std::unique_ptr<Transfer> Fetch(FetchRequest, FetchSink*) override { return nullptr; }
  std::string Describe(const std::string& key) const override { return base_ + key; }

 private:
  const std::string base_;
};

// Its URL is http://NAME/.
inline std::shared_ptr<Origin> NamedOrigin(const std::string& name) {
  auto origin = std::make_shared<Origin>(4);
  origin->name = name;
  origin->backend = std::make_unique<NamedBackend>("http://" + name + "/");
  return origin;
}

}  // namespace fetcher

#endif  // TESTS_FETCHER_ENGINE_NAMED_ORIGIN_H_
