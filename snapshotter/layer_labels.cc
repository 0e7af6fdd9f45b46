#include "snapshotter/layer_labels.h"

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "cachecore/base/digest.h"

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;

Status Missing(const char* label, const char* cure) {
  return Status(EINVAL, std::string("this is a layer of a Holdfast image, and the label ") + label +
                            " is missing: " + cure);
}

Status CheckDigest(const Labels& labels, const char* label) {
  const std::string& value = LabelOf(labels, label);
  if (cachecore::IsDigest(value)) return {};
  return Status(EINVAL, std::string("the label ") + label + " is \"" + value +
                            "\", which is not sha256: and 64 hexadecimal digits");
}

// "HOST/PATH[:TAG][@DIGEST]" without tag and digest.
Status SplitReference(const std::string& reference, ImageLayer* image) {
  const std::string name = reference.substr(0, reference.find('@'));
  const size_t slash = name.find('/');
  std::string path = slash == std::string::npos ? "" : name.substr(slash + 1);
  path = path.substr(0, path.find(':'));
  const auto is_plain = [](char c) { return c > ' ' && c < '\x7f' && c != '"' && c != '?'; };
  if (slash == 0 || path.empty() || !std::all_of(name.begin(), name.end(), is_plain)) {
    return Status(EINVAL, std::string("the label ") + kImageLabel + " is \"" + reference +
                              "\", which names no repository of a registry");
  }
  image->registry = name.substr(0, slash);
  image->repository = path;
  return {};
}

constexpr char kCure[] =
    "set disable_snapshot_annotations = false in the CRI plugin of containerd 1.x and 2.0, or "
    "enable_remote_snapshot_annotations = \"true\" in the exports of the proxy plugin of 2.1 and "
    "later; a client that pulls by itself sets it with AppendInfoHandlerWrapper";

}  // namespace

std::string ChainId(const std::string& parent_chain, const std::string& diff_id) {
  if (parent_chain.empty()) return diff_id;
  return cachecore::DigestOf(parent_chain + " " + diff_id);
}

const std::string& LabelOf(const Labels& labels, const char* name) {
  static const std::string none;
  const auto found = labels.find(name);
  return found == labels.end() ? none : found->second;
}

Result<std::optional<ImageLayer>> ImageLayerOf(const Labels& labels) {
  if (!labels.contains(kVerityLabel)) return std::optional<ImageLayer>();
  if (!labels.contains(kReferenceLabel)) {
    return Missing(
        kReferenceLabel,
        "pull through the CRI plugin, or by `ctr images pull` of containerd 2.1 and later");
  }
  for (const char* label : {kImageLabel, kDigestLabel}) {
    if (!labels.contains(label)) {
      return Missing(label, kCure);
    }
  }
  for (const char* label : {kReferenceLabel, kVerityLabel, kMerkleLabel, kDigestLabel}) {
    RETURN_IF_ERROR(CheckDigest(labels, label));
  }
  ImageLayer image;
  RETURN_IF_ERROR(SplitReference(LabelOf(labels, kImageLabel), &image));
  image.blob = LabelOf(labels, kDigestLabel);
  image.verity = LabelOf(labels, kVerityLabel);
  image.merkle = LabelOf(labels, kMerkleLabel);
  return std::optional<ImageLayer>(image);
}

bool IsMerkleLayer(const SnapshotRecord& parent, const std::string& reference) {
  return parent.content == Content::kImage && !reference.empty() &&
         reference == ChainId(parent.reference, parent.image.merkle);
}

}  // namespace snapshotter
