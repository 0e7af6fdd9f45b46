#include <cerrno>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/parse_text.h"
#include "cli/command.h"
#include "host/build/image_build.h"
#include "host/build/image_push.h"
#include "host/images/image_inspect.h"
#include "host/mount/answering_paths.h"
#include "host/registries/registry_options.h"

namespace cli {
namespace {

using cachecore::BytesText;
using cachecore::CatchStopSignals;
using cachecore::Deadline;
using cachecore::JsonText;
using cachecore::Progress;
using cachecore::Result;
using cachecore::Status;
using host::BuildImage;
using host::BuildInput;
using host::BuiltImage;
using host::CheckArgumentsAnswer;
using host::ImageBuildRequest;
using host::ImageReference;
using host::InspectImage;
using host::InspectText;
using host::Instance;
using host::InstanceOptions;
using host::LayoutBlob;
using host::ParseBuildInput;
using host::ParseImageReference;
using host::PushImage;
using host::RegistryAccess;
using host::RegistryOptions;
using nlohmann::json;

// Of what has no --timeout.
constexpr std::chrono::hours kNoLimit{24 * 365};

// How a registry is reached, as every verb that talks to one has it.
struct AccessOptions {
  RegistryOptions registry;
  std::string ca_file;

  void AddTo(CLI::App* app) {
    registry.AddTo(app);
    app->add_option("--ca-file", ca_file, "Trust the registry by this PEM file")->type_name("FILE");
  }
  Result<RegistryAccess> Make() const {
    ASSIGN_OR_RETURN(RegistryAccess access, registry.Make());
    if (!ca_file.empty()) access.ca_file = std::filesystem::absolute(ca_file).string();
    return access;
  }
};

struct BuildOptions {
  AccessOptions access;
  std::string input;
  std::string output;
  std::string config;
  std::string tmp_directory;
  std::string max_size;
  bool force = false;
  bool json = false;
};

struct PushOptions {
  AccessOptions access;
  std::string layout;
  std::string target;
  bool json = false;
};

struct InspectOptions {
  InstanceOptions instance;
  AccessOptions access;
  std::string image;
  std::string timeout = "30s";
  bool json = false;
};

json ToJson(const LayoutBlob& blob) { return {{"digest", blob.digest}, {"size", blob.bytes}}; }

void PrintBuilt(const BuiltImage& built, const std::string& output, bool as_json) {
  if (as_json) {
    const json printed = {{"layout", output},
                          {"manifest", ToJson(built.manifest)},
                          {"config", ToJson(built.config)},
                          {"erofs", ToJson(built.erofs)},
                          {"merkle", ToJson(built.merkle)},
                          {"verity", built.verity},
                          {"platform", built.platform},
                          {"files", built.tree.files},
                          {"file_bytes", built.tree.bytes}};
    std::cout << JsonText(printed, 2) << '\n';
    return;
  }
  std::cout << "layout    " << output << "\nmanifest  " << built.manifest.digest << "\nimage     "
            << built.erofs.digest << ", " << BytesText(built.erofs.bytes) << ", "
            << built.tree.files << " files\nverity    " << built.verity << "\nplatform  "
            << built.platform << '\n';
}

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  std::string made = std::filesystem::absolute(path, error).lexically_normal().string();
  while (made.size() > 1 && made.back() == '/') made.pop_back();
  return made;
}

int RunBuild(const BuildOptions& options) {
  CatchStopSignals();
  const Status answers = CheckArgumentsAnswer(
      {options.input, options.output, options.config, options.tmp_directory}, Deadline(kNoLimit));
  if (!answers.ok()) return Fail(answers);
  ImageBuildRequest request;
  Result<BuildInput> input = ParseBuildInput(options.input);
  if (!input.ok()) return Fail(input.status());
  request.input = std::move(input).value();
  if (request.input.kind == BuildInput::Kind::kRegistry) {
    Result<RegistryAccess> access = options.access.Make();
    if (!access.ok()) return Fail(access.status(), kExitUsage);
    request.access = std::move(access).value();
  } else if (const Status unused = options.access.registry.CheckUnused(); !unused.ok()) {
    return Fail(unused, kExitUsage);
  }
  request.output = AbsolutePath(options.output);
  request.replaces = options.force;
  request.config_file = options.config;
  if (!options.tmp_directory.empty()) request.tmp_directory = AbsolutePath(options.tmp_directory);
  if (!options.max_size.empty()) {
    const Result<uint64_t> size = cachecore::ParseSize(options.max_size);
    if (!size.ok()) return Fail(Status(size.status()).WithContext("--max-size"), kExitUsage);
    request.tree_bytes_max = *size;
  }
  Progress progress;
  const Result<BuiltImage> built = BuildImage(request, &progress);
  progress.Clear();
  if (!built.ok()) return Fail(built.status());
  PrintBuilt(*built, request.output, options.json);
  return kExitOk;
}

int RunPush(const PushOptions& options) {
  CatchStopSignals();
  const Status answers = CheckArgumentsAnswer({options.layout}, Deadline(kNoLimit));
  if (!answers.ok()) return Fail(answers);
  Result<ImageReference> target = ParseImageReference(options.target);
  if (target.ok() && (target->kind != ImageReference::Kind::kRegistry || target->tag.empty())) {
    return Fail(
        Status(EINVAL, options.target + " can't be pushed to; give oci://REGISTRY/REPO:TAG"),
        kExitUsage);
  }
  if (!target.ok()) return Fail(target.status(), kExitUsage);
  const Result<RegistryAccess> access = options.access.Make();
  if (!access.ok()) return Fail(access.status(), kExitUsage);
  Progress progress;
  const Result<std::string> digest = PushImage(options.layout, *target, *access, &progress);
  progress.Clear();
  if (!digest.ok()) return Fail(digest.status());
  ImageReference pinned = *target;
  pinned.digest = *digest;
  if (options.json) {
    const json printed = {{"reference", pinned.Text()}, {"manifest", *digest}};
    std::cout << JsonText(printed, 2) << '\n';
  } else {
    std::cout << pinned.Text() << '\n';
  }
  return kExitOk;
}

int RunInspect(const InspectOptions& options) {
  CatchStopSignals();
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<RegistryAccess> access = options.access.Make();
  if (!access.ok()) return Fail(access.status(), kExitUsage);
  const Result<cachecore::Duration> timeout = cachecore::ParseDuration(options.timeout);
  if (!timeout.ok()) return Fail(Status(timeout.status()).WithContext("--timeout"), kExitUsage);
  const auto limit = std::chrono::ceil<std::chrono::milliseconds>(*timeout);
  const Status answers = CheckArgumentsAnswer({options.image}, Deadline(limit));
  if (!answers.ok()) return Fail(answers);
  const Result<json> found = InspectImage(options.image, *access, *instance, limit);
  if (!found.ok()) return Fail(found.status());
  std::cout << (options.json ? JsonText(*found, 2) + "\n" : InspectText(*found));
  return kExitOk;
}

void AddBuild(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<BuildOptions>();
  app->add_option("SRC", options->input,
                  "A directory, OCI layout, archive of one or of docker's, or docker://...")
      ->required();
  app->add_option("OUT", options->output, "The directory to make: an OCI layout")->required();
  app->add_flag("--force", options->force, "Replace an OCI layout that is there");
  app->add_option("--config", options->config, "For a directory: the image's OCI config")
      ->type_name("FILE");
  app->add_option("--tmp-dir", options->tmp_directory, "Unpack layers here (default: beside OUT)")
      ->type_name("DIR");
  app->add_option("--max-size", options->max_size,
                  "The most that the files may have (default: two fifths of what is free)")
      ->type_name("BYTES");
  app->add_flag("--json", options->json, "Print JSON");
  options->access.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunBuild(*options); });
}

void AddPush(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<PushOptions>();
  app->add_option("OUT", options->layout, "What holdfast image build has made")->required();
  app->add_option("REF", options->target, "oci://REGISTRY/REPO:TAG")->required();
  app->add_flag("--json", options->json, "Print JSON");
  options->access.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunPush(*options); });
}

void AddInspect(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<InspectOptions>();
  app->add_option("REF", options->image, "oci://..., oci-layout:DIR[:TAG] or a layout directory")
      ->required();
  app->add_flag("--json", options->json, "Print JSON");
  app->add_option("--timeout", options->timeout, "How long to wait for the registry (default: 30s)")
      ->type_name("TIME");
  options->access.AddTo(app);
  options->access.registry.AddMirrorTo(app);
  options->instance.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunInspect(*options); });
}

}  // namespace

void AddImage(CLI::App* app, int* exit_code) {
  app->require_subcommand(1);
  AddBuild(app->add_subcommand("build", "Make an image of a directory or a container image"),
           exit_code);
  AddPush(app->add_subcommand("push", "Put an image into a registry"), exit_code);
  AddInspect(app->add_subcommand("inspect", "Show what an image is"), exit_code);
}

}  // namespace cli
