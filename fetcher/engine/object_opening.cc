#include "fetcher/engine/object_opening.h"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <variant>

namespace fetcher {

using cachecore::VerityLayout;
using Kind = Failure::Kind;

void ObjectOpening::Start(size_t index) {
  OriginSet& origins = *parts_.origins;
  origins.SetProbing(index, true);
  Probe& probe = probes_[index];
  probe.slot = std::make_unique<TransferSlot>(origins.at(index));
  probe.transfer = origins.at(index)->backend->Probe(
      names_.key, origins.IsDoubted(index),
      [this, index](ProbeResult result) { OnProbed(index, std::move(result)); });
}

void ObjectOpening::OnProbed(size_t index, ProbeResult result) {
  const std::unique_ptr<Transfer> ended = std::move(probes_.at(index).transfer);
  probes_.erase(index);
  parts_.origins->SetProbing(index, false);
  if (auto* failed = std::get_if<Failure>(&result)) {
    return parts_.owner->OnOriginFails(index, std::move(*failed));
  }
  const auto& version = std::get<ObjectVersion>(result);
  if (parts_.identity->verity() && !is_open_) return StartRoot(index, version);
  if (auto failure = Take(index, version)) {
    return parts_.owner->OnOriginFails(index, std::move(*failure));
  }
  parts_.owner->OnOriginServes(index);
}

std::optional<Failure> ObjectOpening::Take(size_t index, const ObjectVersion& version) {
  ObjectIdentity& identity = *parts_.identity;
  if (!identity.is_unchecked()) return Pin(index, version);
  const std::string& origin = parts_.origins->at(index)->name;
  const auto changed = identity.DiffersFromUnchecked(origin, UrlAt(index), version);
  if (!changed) {
    Confirm(version);
    return std::nullopt;
  }
  const Failure judged =
      parts_.origins->JudgeChange(index, *changed, identity.IsNamedByDigest(), parts_.clock.Now());
  // Its owner judges it again, to the same end.
  if (judged.kind != Kind::kChanged) return changed;
  // A change that is believed makes it another object: this OPEN is that one's first.
  identity.ForgetUnchecked();
  return Pin(index, version);
}

std::optional<Failure> ObjectOpening::Pin(size_t index, const ObjectVersion& version) {
  auto pinned = parts_.identity->PinOrigin(
      parts_.origins->at(index)->name, UrlAt(index), version, is_open_,
      [this](const std::string& name) { return parts_.origins->HasName(name); });
  if (auto* failure = std::get_if<Failure>(&pinned)) return std::move(*failure);
  parts_.client->SetAttr(names_.id, std::get<std::string>(pinned));
  if (!is_open_) parts_.client->SetFacts(names_.id, parts_.identity->FactsOf(version));
  return std::nullopt;
}

void ObjectOpening::Confirm(const ObjectVersion& version) {
  parts_.identity->Confirm();
  parts_.client->SetFacts(names_.id, parts_.identity->FactsOf(version));
}

// ---- The digest is that of size and root hash

void ObjectOpening::StartRoot(size_t index, const ObjectVersion& version) {
  const VerityLayout layout(version.size_bytes);
  if (version.size_bytes == 0) return OnRoot(index, version, {});
  ByteRange range{0, version.size_bytes};  // One block: its hash is the root hash.
  ObjectVersion fetched = version;
  if (layout.has_tree()) {
    range = {0, std::min(ObjectTree::kChunk, layout.tree_bytes())};
    fetched = {layout.tree_bytes(), fetcher::Pin{}};
  }
  root_ = std::make_unique<TreePiece>(this, index, parts_.origins->at(index),
                                      layout.has_tree() ? names_.merkle_key : names_.key, range);
  root_->object_version = version;
  root_->Start(fetched);
}

void ObjectOpening::OnTreeEnd(std::optional<Failure> failure) {
  const std::unique_ptr<TreePiece> ended = std::move(root_);
  if (failure) {
    return parts_.owner->OnOriginFails(ended->index(), ended->Explain(*failure, names_.merkle_key));
  }
  OnRoot(ended->index(), ended->object_version, ended->bytes());
}

void ObjectOpening::OnRoot(size_t index, const ObjectVersion& version,
                           std::span<const char> bytes) {
  const cachecore::Digest& digest = *parts_.identity->verity();
  ObjectTree tree(digest, version.size_bytes, parts_.trees, names_.tree_owner);
  parts_.trees->Forget(names_.tree_owner);  // Of an origin that has said another size.
  bool right;
  if (tree.layout().has_tree()) {
    (void)tree.Take(0, bytes);
    right = parts_.trees->Find(names_.tree_owner, 0) != nullptr;
  } else if (version.size_bytes > 0) {
    right = tree.IsRight(0, nullptr, tree.HashesOf(bytes).front());
  } else {
    right = cachecore::BlockHasher::OfThisThread().OfFile(0, {}) == digest;
  }
  const ObjectIdentity& identity = *parts_.identity;
  std::optional<Failure> failure;
  if (!right) {
    const Backend& backend = *parts_.origins->at(index)->backend;
    const std::string tree_text =
        tree.layout().has_tree()
            ? ", or " + backend.Describe(names_.merkle_key) + " is not its Merkle tree"
            : "";
    failure = Failure{
        Kind::kRefused, EBADMSG,
        UrlAt(index) + ": is not the file of digest " + cachecore::DigestText(digest) + tree_text};
  } else if (identity.is_unchecked() && identity.unchecked_size() == version.size_bytes) {
    Confirm(version);  // Whatever else has changed: the digest says that it is the same.
  } else {
    failure = Pin(index, version);
  }
  if (failure) return parts_.owner->OnOriginFails(index, std::move(*failure));
  parts_.owner->OnVerified(index, std::move(tree));
}

}  // namespace fetcher
