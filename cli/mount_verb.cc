#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/parse_text.h"
#include "cachecore/verity_tree.h"
#include "cli/command.h"
#include "cli/deadline.h"
#include "cli/fetcher_user.h"
#include "cli/image_reference.h"
#include "cli/image_source.h"
#include "cli/mount_operation.h"
#include "cli/origin_access.h"
#include "cli/registry_options.h"
#include "cli/resolved_image.h"
#include "cli/settings.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;

struct MountOptions {
  InstanceOptions instance;
  std::string url;
  std::string mount_point;
  std::vector<std::string> origins;
  std::string as = "auto";
  OriginAccess web;
  std::string verify;
  std::string merkle;
  std::string identity = "query";
  bool renew = false;
  RegistryOptions registry;
  std::string erofs_options;
  bool suid = false;
  bool dev = false;
  std::string timeout = "30s";
  std::string cache_dir;
  std::string request_timeout;
  std::string detach_policy;
  std::string fetch_size;
  std::string readahead_max;
  bool fetch_exact = false;
  std::string watchdog = "30s";
  bool no_spare = false;
  std::string fetcher_user;
  std::vector<std::string> daemon_flags;
  std::vector<std::string> fetcher_flags;
};

Result<Settings> SettingsOf(const MountOptions& options) {
  Settings settings;
  settings.cache_dir = options.cache_dir;
  if (!options.cache_dir.empty() && options.cache_dir[0] != '/') {
    return Status(EINVAL, "--cache-dir " + options.cache_dir + " must be an absolute path");
  }
  const auto add = [&settings](const char* flag, const std::string& value) {
    if (!value.empty()) settings.daemon_flags.push_back(std::string(flag) + value);
  };
  if (!options.request_timeout.empty()) {
    Result<cachecore::Duration> timeout = cachecore::ParseDuration(options.request_timeout);
    if (!timeout.ok()) return std::move(timeout).status().WithContext("--request-timeout");
  }
  add("--request_timeout=", options.request_timeout);
  add("--detach_policy=", options.detach_policy);
  add("--fetch_size=", options.fetch_size);
  add("--readahead_max=", options.readahead_max);
  if (options.fetch_exact) settings.daemon_flags.push_back("--fetch_exact");
  const Result<cachecore::Duration> watchdog = cachecore::ParseDuration(options.watchdog);
  if (!watchdog.ok()) return Status(watchdog.status()).WithContext("--watchdog");
  settings.keep_spare = !options.no_spare;
  if (!options.fetcher_user.empty()) {
    RETURN_IF_ERROR(FindFetcherUser(options.fetcher_user).status());
    settings.fetcher_user = options.fetcher_user;
  }
  settings.watchdog = std::chrono::ceil<std::chrono::milliseconds>(*watchdog);
  const auto add_all = [](const std::vector<std::string>& from, std::vector<std::string>* to) {
    for (const std::string& flag : from) to->push_back(flag.starts_with("-") ? flag : "--" + flag);
  };
  add_all(options.daemon_flags, &settings.daemon_flags);
  add_all(options.fetcher_flags, &settings.fetcher_flags);
  return settings;
}

// What the command line asks for; of an image reference its source is still to be resolved.
struct ParsedMount {
  std::optional<ImageReference> reference;
  RegistryAccess access;
  MountRequest request;
};

// What an image reference's manifest says is added later.
Status AddVerity(const MountOptions& options, ImageSource* source) {
  if (options.verify.empty()) {
    return options.merkle.empty() ? Status() : Status(EINVAL, "--merkle needs --verify");
  }
  const Result<cachecore::Digest> digest = cachecore::ParseDigest(options.verify);
  if (!digest.ok()) return Status(digest.status()).WithContext("--verify");
  if (options.merkle.find('/') != std::string::npos) {
    return Status(EINVAL, "--merkle " + options.merkle + ": a name beside the image, without '/'");
  }
  source->verity = cachecore::DigestText(*digest);
  source->merkle = options.merkle;
  return {};
}

Result<ParsedMount> Parse(const MountOptions& options) {
  ASSIGN_OR_RETURN(Instance instance, options.instance.Make());
  std::optional<ImageReference> reference;
  ImageSource source;
  RegistryAccess access;
  if (IsImageReference(options.url)) {
    ASSIGN_OR_RETURN(reference, ParseImageReference(options.url));
    if (!options.origins.empty()) {
      return Status(EINVAL, "--origin is for URLs; further registries are given by --mirror");
    }
    ASSIGN_OR_RETURN(access, options.registry.Make());
    ASSIGN_OR_RETURN(const OriginAccess web, options.web.Resolve({options.url}));
    access.ca_file = web.ca_file;
    access.client_cert = web.client_cert;
    access.client_key = web.client_key;
  } else {
    RETURN_IF_ERROR(options.registry.CheckUnused());
    std::vector<std::string> urls = {options.url};
    urls.insert(urls.end(), options.origins.begin(), options.origins.end());
    ASSIGN_OR_RETURN(source, MakeImageSource(urls, options.web));
    source.path_is_identity = options.identity == "path";
  }
  RETURN_IF_ERROR(AddVerity(options, &source));
  Result<cachecore::Duration> timeout = cachecore::ParseDuration(options.timeout);
  if (!timeout.ok()) return std::move(timeout).status().WithContext("--timeout");
  const auto timeout_ms = std::chrono::duration_cast<std::chrono::milliseconds>(*timeout);
  if (timeout_ms.count() <= 0) return Status(EINVAL, "--timeout must be at least 1ms");
  ASSIGN_OR_RETURN(Settings settings, SettingsOf(options));
  ASSIGN_OR_RETURN(ImageMountOptions words,
                   ImageMountOptions::Parse(options.erofs_options, options.suid, options.dev));
  return ParsedMount{
      std::move(reference), std::move(access),
      MountRequest{std::move(instance), std::move(source), options.mount_point, options.as,
                   std::move(words), timeout_ms, std::move(settings), "", "", 0, options.renew}};
}

// Finds out what the reference means, and where its bytes are.
Status Resolve(ParsedMount* parsed, const Deadline& deadline) {
  const ImageReference& reference = *parsed->reference;
  MountRequest* request = &parsed->request;
  request->reference = reference.Text();
  const std::string verity = request->source.verity;
  const std::string merkle = request->source.merkle;
  if (reference.kind == ImageReference::Kind::kBlob) {
    request->source = BlobSource(reference, reference.digest, parsed->access);
    request->source.verity = verity;
    request->source.merkle = merkle;
    return {};
  }
  ASSIGN_OR_RETURN(const ResolvedImage image,
                   ResolveImage(reference, parsed->access, request->instance, deadline));
  request->source = BlobSource(reference, image.erofs_digest, parsed->access);
  if (!verity.empty() && verity != image.verity) {
    return Status(EBADMSG, reference.Text() + ": its manifest names " + image.verity +
                               ", not the digest given by --verify");
  }
  request->source.verity = image.verity;
  request->source.merkle = BlobKey(reference, image.merkle_digest);
  request->manifest_digest = image.manifest_digest;
  request->image_bytes = image.erofs_bytes;
  return {};
}

int RunMount(const MountOptions& options) {
  Result<ParsedMount> parsed = Parse(options);
  if (!parsed.ok()) return Fail(parsed.status(), kExitUsage);
  const Status allowed = RequireRoot("mounting");
  if (!allowed.ok()) return Fail(allowed);
  CatchStopSignals();
  const Deadline deadline(parsed->request.timeout);
  parsed->request.deadline = deadline;
  if (parsed->reference) {
    Status resolved = Resolve(&*parsed, deadline);
    if (!resolved.ok()) return Fail(std::move(resolved).WithContext("cannot mount"));
  }
  const Status status = MountOperation(std::move(parsed->request)).Run();
  return status.ok() ? kExitOk : Fail(status);
}

// Without CLI11's own list in the help: the type name is one already.
CLI::Validator OneOf(const std::vector<std::string>& words) {
  return CLI::IsMember(words).description("");
}

void AddSettings(CLI::App* app, MountOptions* options) {
  const std::string group = "Settings, taken when this mount starts the instance";
  app->add_option("--cache-dir", options->cache_dir, "Keep the cache there")
      ->type_name("DIR")
      ->group(group);
  app->add_option("--request-timeout", options->request_timeout,
                  "Fail a read with EIO after so long (0: wait for ever)")
      ->type_name("TIME")
      ->group(group);
  app->add_option("--detach-policy", options->detach_policy,
                  "What reads do while no fetcher is attached: hold or fail")
      ->type_name("hold|fail")
      ->check(OneOf({"hold", "fail"}))
      ->group(group);
  app->add_option("--fetch-size", options->fetch_size, "The smallest fetch")
      ->type_name("BYTES")
      ->group(group);
  app->add_option("--readahead-max", options->readahead_max, "The largest sequential read-ahead")
      ->type_name("BYTES")
      ->group(group);
  app->add_flag("--fetch-exact", options->fetch_exact, "Fetch just the ranges the kernel asks for")
      ->group(group);
  app->add_option("--watchdog", options->watchdog,
                  "Restart a process that has not served for so long (default: 30s; 0: never)")
      ->type_name("TIME")
      ->group(group);
  app->add_flag("--no-spare", options->no_spare,
                "Keep no second holdfastd at hand: less memory, a longer pause after a death")
      ->group(group);
  app->add_option("--fetcher-user", options->fetcher_user,
                  "Run the fetcher as this user (default: holdfast-fetcher, else nobody)")
      ->type_name("USER")
      ->group(group);
  app->add_option("--daemon-flag", options->daemon_flags, "A flag for holdfastd; repeatable")
      ->type_name("FLAG")
      ->expected(1)
      ->take_all()
      ->group(group);
  app->add_option("--fetcher-flag", options->fetcher_flags,
                  "A flag for holdfast-fetcherd; repeatable")
      ->type_name("FLAG")
      ->expected(1)
      ->take_all()
      ->group(group);
}

}  // namespace

void AddMount(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<MountOptions>();
  app->add_option("URL", options->url,
                  "The image: http://, https://, s3://BUCKET/KEY, file:///path, "
                  "oci://HOST/REPO:TAG, oci-layout:DIR")
      ->required()
      ->type_name("");
  app->add_option("MOUNTPOINT", options->mount_point, "An existing directory")
      ->required()
      ->type_name("");
  app->add_option("--origin", options->origins, "Another URL of the same image; repeatable")
      ->type_name("URL")
      ->expected(1)
      ->take_all();
  app->add_option("--as", options->as, "What the object is (default: auto, by its first bytes)")
      ->type_name("auto|erofs|file")
      ->check(OneOf({"auto", "erofs", "file"}));
  app->add_option("--verify", options->verify,
                  "Check every byte against this fs-verity digest of the image")
      ->type_name("sha256:HEX");
  app->add_option("--merkle", options->merkle,
                  "The Merkle tree's name beside the image (default: the image's and .merkle)")
      ->type_name("NAME");
  app->add_option("--identity", options->identity,
                  "What names the object: URL and query but for signatures, or the URL's path "
                  "alone (default: query)")
      ->type_name("query|path")
      ->check(OneOf({"query", "path"}));
  app->add_flag("--renew", options->renew,
                "Give what is mounted of this object already this URL's signature and options too");
  app->add_option("--erofs-options", options->erofs_options, "Mount options, as mount -o")
      ->type_name("OPTIONS");
  app->add_flag("--suid", options->suid, "Let the image's setuid and setgid programs be such");
  app->add_flag("--dev", options->dev, "Let the image's devices be opened");
  app->add_option("--timeout", options->timeout,
                  "How long the mount may take as a whole (default: 30s)")
      ->type_name("TIME");
  options->web.AddTo(app);
  options->registry.AddTo(app);
  options->registry.AddMirrorTo(app);
  options->instance.AddTo(app);
  AddSettings(app, options.get());
  app->callback([options, exit_code] { *exit_code = RunMount(*options); });
}

}  // namespace cli
