#include "host/images/holdfast_manifest.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "cachecore/base/digest.h"

namespace host {
namespace {

using cachecore::DigestOf;
using nlohmann::json;

const std::string kImage = DigestOf("image");
const std::string kTree = DigestOf("tree");
const std::string kVerity = DigestOf("verity");

json GoodManifest() {
  return {
      {"schemaVersion", 2},
      {"mediaType", kOciManifestType},
      {"annotations", {{kImageVersionAnnotation, "1"}}},
      {"config", {{"mediaType", kOciConfigType}, {"digest", DigestOf("{}")}, {"size", 2}}},
      {"layers",
       {{{"mediaType", kErofsLayerType},
         {"digest", kImage},
         {"size", 8192},
         {"annotations",
          {{kVerityAnnotation, kVerity}, {kSizeAnnotation, "8192"}, {kMerkleAnnotation, kTree}}}},
        {{"mediaType", kMerkleLayerType}, {"digest", kTree}, {"size", 4096}}}}};
}

std::string Refusal(const json& manifest, int error) {
  const auto parsed = ParseHoldfastManifest(manifest.dump(), "REF");
  EXPECT_EQ(parsed.status().error(), error);
  return parsed.status().message();
}

json List(const json& platforms) {
  json list = {{"mediaType", "application/vnd.oci.image.index.v1+json"},
               {"manifests", json::array()}};
  for (const json& platform : platforms) {
    list["manifests"].push_back({{"digest", DigestOf(platform.dump())}, {"platform", platform}});
  }
  return list;
}

TEST(HoldfastManifestTest, ARightOneIsTaken) {
  const auto parsed = ParseHoldfastManifest(GoodManifest().dump(), "REF");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->layers, (std::vector<ImageLayer>{{kImage, 8192}}));
  EXPECT_EQ(parsed->merkle_digest, kTree);
  EXPECT_EQ(parsed->verity, kVerity);
  EXPECT_EQ(parsed->config_digest, DigestOf("{}"));
}

TEST(HoldfastManifestTest, AForeignImageIsRefusedWithTheCure) {
  json layers = GoodManifest();
  layers["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip";
  EXPECT_EQ(
      Refusal(layers, EMEDIUMTYPE),
      "REF is not a Holdfast image (it has a layer of type "
      "'application/vnd.oci.image.layer.v1.tar+gzip'); build one from it with: holdfast image "
      "build");
  json docker = GoodManifest();
  docker["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json";
  EXPECT_NE(Refusal(docker, EMEDIUMTYPE).find("holdfast image build"), std::string::npos);
  json plain = GoodManifest();
  plain.erase("annotations");
  EXPECT_NE(Refusal(plain, EMEDIUMTYPE).find("org.holdfast.image.version"), std::string::npos);
  json one_layer = GoodManifest();
  one_layer["layers"].erase(1);
  EXPECT_NE(Refusal(one_layer, EMEDIUMTYPE).find("1 layers"), std::string::npos);
}

TEST(HoldfastManifestTest, ANewerVersionIsSaid) {
  json newer = GoodManifest();
  newer["annotations"][kImageVersionAnnotation] = "2";
  EXPECT_EQ(Refusal(newer, EMEDIUMTYPE),
            "REF is a Holdfast image of version 2; this holdfast knows version 1");
}

TEST(HoldfastManifestTest, OneThatContradictsItselfIsRefused) {
  json size = GoodManifest();
  size["layers"][0]["size"] = 4096;
  EXPECT_NE(Refusal(size, EBADMSG).find("holdfast.size"), std::string::npos);
  json tree = GoodManifest();
  tree["layers"][1]["digest"] = DigestOf("another");
  EXPECT_NE(Refusal(tree, EBADMSG).find("holdfast.merkle"), std::string::npos);
  json verity = GoodManifest();
  verity["layers"][0]["annotations"][kVerityAnnotation] = "sha256:0";
  EXPECT_NE(Refusal(verity, EBADMSG).find("holdfast.verity"), std::string::npos);
  for (const char* text : {"", "[]", "{", "null", "{\"layers\": 7}"}) {
    EXPECT_FALSE(ParseHoldfastManifest(text, "REF").ok()) << text;
  }
}

TEST(HoldfastManifestTest, OfAListTheOneForTheMachineIsTaken) {
  const json amd64 = {{"os", "linux"}, {"architecture", "amd64"}};
  const json arm64 = {{"os", "linux"}, {"architecture", "arm64"}, {"variant", "v8"}};
  const json list = List({arm64, amd64});
  EXPECT_TRUE(IsManifestList(list));
  EXPECT_FALSE(IsManifestList(GoodManifest()));
  using Digests = std::vector<std::string>;
  EXPECT_EQ(*ManifestsFor(list, {"linux", "amd64", ""}, "REF"), Digests{DigestOf(amd64.dump())});
  EXPECT_EQ(*ManifestsFor(list, {"linux", "arm64", "v8"}, "REF"), Digests{DigestOf(arm64.dump())});
}

TEST(HoldfastManifestTest, OfAListAllForTheMachineAreLookedAt) {
  json native = {{"os", "linux"}, {"architecture", "amd64"}, {"os.features", {"erofs"}}};
  const json plain = {{"os", "linux"}, {"architecture", "amd64"}};
  EXPECT_EQ(*ManifestsFor(List({native, plain}), {"linux", "amd64", ""}, "REF"),
            (std::vector<std::string>{DigestOf(native.dump()), DigestOf(plain.dump())}));
}

json NativeManifest(const std::vector<std::string>& types) {
  json manifest = {{"mediaType", kOciManifestType},
                   {"config", {{"mediaType", kOciConfigType}, {"digest", DigestOf("config")}}},
                   {"layers", json::array()}};
  for (const std::string& type : types) {
    manifest["layers"].push_back({{"mediaType", type}, {"digest", DigestOf(type)}, {"size", 8192}});
  }
  return manifest;
}

TEST(HoldfastManifestTest, ANativeImageHasItsLayersTheLowestFirst) {
  json manifest = NativeManifest({kNativeLayerType, kNativeLayerType});
  manifest["layers"][1]["digest"] = DigestOf("upper");
  const auto parsed = ParseMountableManifest(manifest.dump(), "REF");
  ASSERT_TRUE(parsed.ok());
  const std::string lower = DigestOf(kNativeLayerType);
  const std::string upper = DigestOf("upper");
  EXPECT_EQ(parsed->layers, (std::vector<ImageLayer>{{lower, 8192}, {upper, 8192}}));
  EXPECT_EQ(parsed->verity, "");
  const auto config = [](const std::vector<std::string>& ids) {
    return json{{"rootfs", {{"diff_ids", ids}}}};
  };
  EXPECT_TRUE(CheckNativeConfig(config({lower, upper}), *parsed, "REF").ok());
  EXPECT_EQ(CheckNativeConfig(config({upper, lower}), *parsed, "REF").error(), EBADMSG);
  EXPECT_EQ(CheckNativeConfig(config({lower}), *parsed, "REF").error(), EBADMSG);
  EXPECT_EQ(CheckNativeConfig(json::object(), *parsed, "REF").error(), EBADMSG);
}

TEST(HoldfastManifestTest, OtherNativeImagesAreRefusedWithWhatTheyAre) {
  const auto refusal = [](const json& manifest) {
    return ParseMountableManifest(manifest.dump(), "REF").status().message();
  };
  EXPECT_NE(refusal(NativeManifest(std::vector<std::string>(501, kNativeLayerType)))
                .find("501 layers, and an overlay takes 500"),
            std::string::npos);
  const std::string zstd = std::string(kNativeLayerType) + "+zstd";
  EXPECT_NE(refusal(NativeManifest({zstd})).find("--erofs raw"), std::string::npos);
  EXPECT_NE(refusal(NativeManifest({kNativeLayerType, "application/x-tar"})).find("image build"),
            std::string::npos);
  json no_size = NativeManifest({kNativeLayerType});
  no_size["layers"][0].erase("size");
  EXPECT_NE(refusal(no_size).find("no size"), std::string::npos);
}

TEST(HoldfastManifestTest, AListWithoutTheMachinesPlatformSaysWhichItHas) {
  const json list = List({{{"os", "linux"}, {"architecture", "arm64"}, {"variant", "v8"}},
                          {{"os", "windows"}, {"architecture", "amd64"}}});
  const auto chosen = ManifestsFor(list, {"linux", "amd64", ""}, "REF");
  EXPECT_EQ(chosen.status().error(), ENOENT);
  EXPECT_EQ(chosen.status().message(),
            "REF has no image for linux/amd64; it has linux/arm64/v8, windows/amd64");
}

}  // namespace
}  // namespace host
