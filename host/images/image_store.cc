#include "host/images/image_store.h"

#include <unistd.h>

#include <cerrno>

#include "cachecore/base/digest.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"

namespace host {

using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::IsDigest;
using cachecore::JsonString;
using cachecore::MakeDirectories;
using cachecore::ReadFile;
using cachecore::ReadJsonFile;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::WriteFileAtomically;
using nlohmann::json;

namespace {

// An image's config can hold what its maker thought private.
constexpr mode_t kDirectoryMode = 0700;
constexpr mode_t kFileMode = 0600;

Status Write(const std::string& path, const std::string& text) {
  RETURN_IF_ERROR(MakeDirectories(path.substr(0, path.rfind('/')), kDirectoryMode));
  return WriteFileAtomically(path, text, kFileMode);
}

}  // namespace

std::string ImageStore::TextFile(const std::string& digest) const {
  return directory_ + "/blobs/sha256/" + DigestHex(digest);
}

std::string ImageStore::TagFile(const std::string& reference) const {
  return directory_ + "/tags/" + DigestHex(DigestOf(reference)) + ".json";
}

Result<std::string> ImageStore::Text(const std::string& digest) const {
  const std::string path = TextFile(digest);
  ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  if (DigestOf(text) == digest) return text;
  unlink(path.c_str());
  return Status(ENOENT, path + " was damaged and has been removed");
}

Status ImageStore::Keep(const std::string& text) const {
  const std::string digest = DigestOf(text);
  if (Text(digest).ok()) return {};
  RETURN_IF_ERROR(MakeDirectories(directory_, kDirectoryMode));
  return Write(TextFile(digest), text);
}

Result<std::string> ImageStore::TagDigest(const std::string& reference) const {
  const std::string path = TagFile(reference);
  const Result<json> value = ReadJsonFile(path);
  if (!value.ok()) return Status(ENOENT, value.status().message());
  std::string digest = JsonString(*value, "manifest");
  if (JsonString(*value, "reference") != reference || !IsDigest(digest)) {
    return Status(ENOENT, path + " is damaged");
  }
  return digest;
}

Status ImageStore::KeepTag(const std::string& reference, const std::string& digest) const {
  if (const Result<std::string> known = TagDigest(reference); known.ok() && *known == digest) {
    return {};
  }
  RETURN_IF_ERROR(MakeDirectories(directory_, kDirectoryMode));
  return Write(TagFile(reference),
               RecordText({{"version", 1}, {"reference", reference}, {"manifest", digest}}) + "\n");
}

}  // namespace host
