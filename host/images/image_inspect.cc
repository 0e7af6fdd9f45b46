#include "host/images/image_inspect.h"

#include "cachecore/base/json_fields.h"
#include "cachecore/base/progress.h"
#include "host/images/image_config.h"
#include "host/images/resolved_image.h"
#include "host/registries/image_reference.h"

namespace host {
namespace {

using cachecore::BytesText;
using cachecore::Deadline;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::JsonText;
using cachecore::Result;
using nlohmann::json;

// What of a container's defaults is worth a line; as the config calls it and as we do.
constexpr struct {
  const char* field;
  const char* word;
} kDefaults[] = {
    {"Entrypoint", "entrypoint"}, {"Cmd", "cmd"},      {"Env", "env"}, {"User", "user"},
    {"WorkingDir", "workdir"},    {"Labels", "labels"}};

std::string PlatformText(const json& platform) {
  const std::string variant = JsonString(platform, "variant");
  return JsonString(platform, "os") + "/" + JsonString(platform, "architecture") +
         (variant.empty() ? "" : "/" + variant);
}

std::string OrNone(const std::string& digest) {
  return digest.empty() ? "none: what is read is not checked" : digest;
}

}  // namespace

Result<json> InspectImage(const std::string& image, const RegistryAccess& access,
                          const Instance& instance, std::chrono::milliseconds timeout) {
  ASSIGN_OR_RETURN(const ImageReference reference, ParseLayoutArgument(image));
  ASSIGN_OR_RETURN(const ResolvedImage resolved,
                   ResolveImage(reference, access, instance, Deadline(timeout)));
  ASSIGN_OR_RETURN(const json config, ParseImageConfig(resolved.config, "the config of " + image));
  json found = {{"reference", reference.Text()},
                {"manifest", resolved.manifest_digest},
                {"platform", PlatformText(PlatformOfConfig(config))},
                {"merkle", {{"digest", resolved.merkle_digest}}},
                {"verity", resolved.verity}};
  json layers = json::array();
  for (const ImageLayer& layer : resolved.layers) {
    layers.push_back({{"digest", layer.digest}, {"size", layer.bytes}});
  }
  if (layers.size() == 1) {
    found["erofs"] = layers[0];
  } else {
    found["layers"] = std::move(layers);
  }
  const json& defaults = JsonField(config, "config");
  for (const auto& [field, word] : kDefaults) {
    if (defaults.contains(field) && !defaults[field].empty()) found[word] = defaults[field];
  }
  return found;
}

std::string InspectText(const json& found) {
  std::string images;
  const json one = json::array({JsonField(found, "erofs")});
  for (const json& layer : found.contains("layers") ? JsonField(found, "layers") : one) {
    images += std::string(images.empty() ? "image       " : "above it    ") +
              JsonString(layer, "digest") + ", " +
              BytesText(static_cast<uint64_t>(JsonInt(layer, "size"))) + "\n";
  }
  std::string text = "reference   " + JsonString(found, "reference") + "\nmanifest    " +
                     JsonString(found, "manifest") + "\nplatform    " +
                     JsonString(found, "platform") + "\n" + images + "merkle      " +
                     OrNone(JsonString(JsonField(found, "merkle"), "digest")) + "\nverity      " +
                     OrNone(JsonString(found, "verity")) + "\n";
  for (const auto& [field, word] : kDefaults) {
    const auto value = found.find(word);
    if (value == found.end()) continue;
    std::string name = word;
    name.resize(12, ' ');
    text += name + (value->is_string() ? value->get<std::string>() : JsonText(*value)) + "\n";
  }
  return text;
}

}  // namespace host
