#include "host/mount/mount_command.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/system/files.h"
#include "cachecore/verity/verity_tree.h"
#include "host/config/loopback_address.h"
#include "host/content/image_file_system.h"
#include "host/images/image_source.h"
#include "host/images/origin_access.h"
#include "host/images/resolved_image.h"
#include "host/instance/fetcher_user.h"
#include "host/instance/privileges.h"
#include "host/instance/settings.h"
#include "host/mount/answering_paths.h"
#include "host/mount/mount_operation.h"
#include "host/mount/still_trying.h"
#include "host/registries/image_reference.h"
#include "host/registries/registry_options.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignalled;

// As the kernel has it.
constexpr int kPartitionMax = 256;
constexpr char kSettingsGroup[] = "Settings, taken when this mount starts the instance";

// As holdfastd takes them: a value that it would refuse is one of the command line here.
Status CheckSizes(const MountOptions& options) {
  uint64_t fetch = 64 << 10;
  if (!options.fetch_size.empty()) {
    const Result<uint64_t> given = cachecore::ParseSize(options.fetch_size);
    if (!given.ok()) return Status(given.status()).WithContext("--fetch-size");
    fetch = *given;
    if (!std::has_single_bit(fetch) || fetch < 4096 || fetch > (4U << 20)) {
      return Status(EINVAL,
                    "--fetch-size " + options.fetch_size + " is not a power of two from 4K to 4M");
    }
  }
  for (const auto& [flag, text] : {std::pair("--cache-max", &options.cache_max),
                                   std::pair("--cache-min-free", &options.cache_min_free)}) {
    const auto given = cachecore::ParseSizeOrPercent(text->empty() ? "0" : *text);
    if (!given.ok()) return Status(given.status()).WithContext(flag);
  }
  if (options.readahead_max.empty()) return {};
  const Result<uint64_t> ahead = cachecore::ParseSize(options.readahead_max);
  if (!ahead.ok()) return Status(ahead.status()).WithContext("--readahead-max");
  if (*ahead == 0 || *ahead >= fetch) return {};
  return Status(EINVAL, "--readahead-max " + options.readahead_max +
                            " is neither 0 nor at least --fetch-size (" + std::to_string(fetch) +
                            " bytes)");
}

Result<Settings> SettingsOf(const MountOptions& options) {
  Settings settings;
  settings.cache_dir = options.cache_dir;
  if (!options.cache_dir.empty() && options.cache_dir[0] != '/') {
    return Status(EINVAL, "--cache-dir " + options.cache_dir + " must be an absolute path");
  }
  if (!options.cache_dir.empty() && cachecore::IsRootDirectory(options.cache_dir)) {
    return Status(EINVAL, "--cache-dir " + options.cache_dir +
                              " is the root directory; give the cache a directory of its own");
  }
  RETURN_IF_ERROR(CheckSizes(options));
  const auto add = [&settings](const char* flag, const std::string& value) {
    if (!value.empty()) settings.daemon_flags.push_back(std::string(flag) + value);
  };
  if (!options.request_timeout.empty()) {
    Result<cachecore::Duration> timeout = cachecore::ParseDuration(options.request_timeout);
    if (!timeout.ok()) return std::move(timeout).status().WithContext("--request-timeout");
  }
  add("--request-timeout=", options.request_timeout);
  add("--detach-policy=", options.detach_policy);
  add("--on-full=", options.on_full);
  add("--cache-max=", options.cache_max);
  add("--cache-min-free=", options.cache_min_free);
  add("--fetch-size=", options.fetch_size);
  add("--readahead-max=", options.readahead_max);
  if (options.fetch_exact) settings.daemon_flags.push_back("--fetch-exact");
  const Result<cachecore::Duration> watchdog = cachecore::ParseDuration(options.watchdog);
  if (!watchdog.ok()) return Status(watchdog.status()).WithContext("--watchdog");
  settings.keep_spare = !options.no_spare;
  if (!options.fetcher_user.empty()) {
    RETURN_IF_ERROR(FindFetcherUser(options.fetcher_user).status());
    settings.fetcher_user = options.fetcher_user;
  }
  if (!options.metrics_listen.empty()) {
    RETURN_IF_ERROR(CheckLoopback(options.metrics_listen).WithContext("--metrics-listen"));
    settings.metrics_listen = options.metrics_listen;
  }
  settings.watchdog = std::chrono::ceil<std::chrono::milliseconds>(*watchdog);
  const auto add_all = [](const std::vector<std::string>& from, std::vector<std::string>* to) {
    for (const std::string& flag : from) {
      to->push_back(DashedFlag(flag.starts_with("-") ? flag : "--" + flag));
    }
  };
  add_all(options.daemon_flags, &settings.daemon_flags);
  add_all(options.fetcher_flags, &settings.fetcher_flags);
  return settings;
}

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

// Which part of the object is mounted, and as what.
Result<ContentChoice> ContentOf(const MountOptions& options) {
  ContentChoice choice{.as = options.as, .partition = options.partition};
  if (!options.offset.empty()) {
    const Result<uint64_t> offset = cachecore::ParseSize(options.offset);
    if (!offset.ok()) return Status(offset.status()).WithContext("--offset");
    choice.offset = *offset;
  }
  if (choice.as == "file" && (choice.offset != 0 || choice.partition != 0)) {
    return Status(EINVAL, "--as=file shows the whole object; leave --offset and --partition out");
  }
  return choice;
}

// The words of --as.
std::vector<std::string> KindWords() {
  std::vector<std::string> words = ImageFileSystemTypes();
  words.insert(words.begin(), "auto");
  words.push_back("file");
  return words;
}

// A layer is one object for all repositories of its registry.
MountRequest::Layer SharedLayer(const ImageReference& image, const ImageLayer& layer,
                                ImageSource source) {
  if (image.kind != ImageReference::Kind::kRegistry) return {std::move(source), layer.bytes, ""};
  source.named = "oci://" + image.registry + "/";
  ImageReference blob = image;
  blob.kind = ImageReference::Kind::kBlob;
  blob.tag.clear();
  blob.digest = layer.digest;
  return {std::move(source), layer.bytes, blob.Text()};
}

// Finds out what the reference means, and where its bytes are.
Status Resolve(ParsedMount* parsed, const Deadline& deadline) {
  const ImageReference& reference = *parsed->reference;
  MountRequest* request = &parsed->request;
  request->reference = reference.Text();
  const std::string verity = request->source.verity;
  const std::string merkle = request->source.merkle;
  if (reference.kind == ImageReference::Kind::kBlob) {
    ASSIGN_OR_RETURN(request->source, BlobSource(reference, reference.digest, parsed->access));
    request->source.verity = verity;
    request->source.merkle = merkle;
    return {};
  }
  ASSIGN_OR_RETURN(const ResolvedImage image,
                   ResolveImage(reference, parsed->access, request->instance, deadline));
  for (const ImageLayer& layer : image.layers) {
    ASSIGN_OR_RETURN(request->source, BlobSource(reference, layer.digest, parsed->access));
    request->image_bytes = layer.bytes;
    if (image.layers.size() == 1) continue;
    request->layers.push_back(SharedLayer(reference, layer, request->source));
  }
  if (image.verity.empty()) {  // Then it is the user who knows a digest, if there is one.
    request->source.verity = verity;
    request->source.merkle = merkle;
  } else {
    if (!verity.empty() && verity != image.verity) {
      return Status(EBADMSG, reference.Text() + ": its manifest names " + image.verity +
                                 ", not the digest given by --verify");
    }
    request->source.verity = image.verity;
    request->source.merkle = BlobKey(reference, image.merkle_digest);
  }
  request->manifest_digest = image.manifest_digest;
  if (request->save) {
    // This image, and not what its tag may name by then.
    ImageReference pinned = reference;
    pinned.tag.clear();
    pinned.digest = image.manifest_digest;
    request->save->image = pinned.Text();
  }
  return {};
}

// Without CLI11's own list in the help: the type name is one already.
CLI::Validator OneOf(const std::vector<std::string>& words) {
  return CLI::IsMember(words).description("");
}

void AddSettings(CLI::App* app, MountOptions* options) {
  const std::string group = kSettingsGroup;
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
  app->add_option(
         "--on-full", options->on_full,
         "What reads of missing bytes do while the cache's disk is full: wait, or go through "
         "without being cached")
      ->type_name("wait|through")
      ->check(OneOf({"wait", "through"}))
      ->group(group);
  app->add_option("--cache-max", options->cache_max,
                  "How large the cache may become (by default 80%; 0: no limit)")
      ->type_name("SIZE|PERCENT%")
      ->group(group);
  app->add_option("--cache-min-free", options->cache_min_free,
                  "How much of its file system the cache leaves to others (by default 5%, "
                  "of what no mount shows; 0: nothing)")
      ->type_name("SIZE|PERCENT%")
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
  app->add_option("--metrics-listen", options->metrics_listen,
                  "Serve the metrics on this port of 127.0.0.1 or [::1], too")
      ->type_name("ADDRESS:PORT")
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
  for (CLI::Option* option : app->get_options()) {
    if (option->get_group() == group && option->get_items_expected_min() > 0) {
      option->check(NotEmpty());
    }
  }
}

}  // namespace

std::vector<std::string> RepeatableOptions(const CLI::App& app) {
  // How long to wait, and what to say, are the command's own; the instance has its settings.
  constexpr std::array<std::string_view, 9> kOthers = {
      "help", "instance", "root", "timeout", "json", "quiet", "persist", "renew", "origin"};
  std::vector<std::string> options;
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0 || option->get_positional() || option->get_group() == kSettingsGroup) {
      continue;
    }
    const std::string name = option->get_name(false, true);
    const std::string plain = name.substr(2);
    if (std::find(kOthers.begin(), kOthers.end(), plain) != kOthers.end()) continue;
    if (option->get_items_expected_max() == 0) {
      options.push_back(name);
      continue;
    }
    const bool is_path = option->get_type_name() == "FILE";
    for (const std::string& value : option->results()) {
      std::error_code error;
      const std::string absolute = std::filesystem::absolute(value, error).string();
      options.push_back(name + "=" + (is_path && !value.empty() && !error ? absolute : value));
    }
  }
  return options;
}

Result<ParsedMount> ParseMount(const MountOptions& options) {
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
  ASSIGN_OR_RETURN(const std::chrono::milliseconds timeout_ms, ParseTimeout(options.timeout));
  ASSIGN_OR_RETURN(Settings settings, SettingsOf(options));
  ASSIGN_OR_RETURN(ImageMountOptions words,
                   ImageMountOptions::Parse(options.erofs_options, options.suid, options.dev));
  ASSIGN_OR_RETURN(ContentChoice content, ContentOf(options));
  std::optional<SavedMount> save;
  if (options.persist) {
    save.emplace();
    save->image = reference ? reference->Text() : source.origins.front().Public();
    save->options = options.repeatable;
    save->environment = AccessEnvironment();
    for (size_t i = 1; i < source.origins.size(); ++i) {
      save->origins.push_back(source.origins[i].Public());
    }
  }
  return ParsedMount{
      std::move(reference), std::move(access),
      MountRequest{std::move(instance), std::move(source), options.mount_point, std::move(content),
                   std::move(words), timeout_ms, std::move(settings), "", "", 0, options.quiet,
                   options.renew, std::move(save)}};
}

Status MountParsed(ParsedMount* parsed, const Deadline& deadline) {
  RETURN_IF_ERROR(RequireMountRights("mounting"));
  parsed->request.deadline = deadline;
  const std::string what =
      parsed->reference ? parsed->reference->Text() : parsed->request.source.PublicUrl();
  const std::string where = parsed->request.mount_point;
  Status status = CheckAnswers("mount point", where, deadline);
  if (status.ok() && parsed->reference) {
    const StillTrying still_trying(parsed->request.quiet,
                                   [&what] { return what + ": its manifest has not come yet"; });
    status = CheckAnswers("the layout", parsed->reference->directory, deadline);
    if (status.ok()) status = Resolve(parsed, deadline).WithContext("cannot mount");
  }
  if (status.ok()) status = CheckAnswers(parsed->request.source, deadline);
  if (status.ok()) status = MountOperation(std::move(parsed->request)).Run();
  if (status.ok() || !StopSignalled()) return status;
  // Whatever failed: the terminal sends the signal to the helper programs as well.
  return Status(EINTR, "interrupted: " + what + " is not mounted on " + where);
}

void MountOptions::AddTo(CLI::App* app) {
  app->add_option("URL", url,
                  "The image: http://, https://, s3://BUCKET/KEY, file:///path, "
                  "oci://HOST/REPO:TAG, oci-layout:DIR")
      ->required()
      ->type_name("");
  app->add_option("MOUNTPOINT", mount_point, "An existing directory")->required()->type_name("");
  app->add_option("--origin", origins, "Another URL of the same image; repeatable")
      ->type_name("URL")
      ->expected(1)
      ->take_all();
  app->add_option("--as", as, "What the object is (default: auto, by its first bytes)")
      ->type_name(CLI::detail::join(KindWords(), "|"))
      ->check(OneOf(KindWords()));
  app->add_option("--partition", partition, "Mount this partition of a disk image, from 1")
      ->type_name("NUMBER")
      ->check(CLI::Range(1, kPartitionMax).description(""));
  app->add_option("--offset", offset, "Mount what begins at this byte of the object")
      ->type_name("BYTES")
      ->check(NotEmpty())
      ->excludes("--partition");
  app->add_option("--verify", verify, "Check every byte against this fs-verity digest of the image")
      ->type_name("sha256:HEX");
  app->add_option("--merkle", merkle,
                  "The Merkle tree's name beside the image (default: the image's and .merkle)")
      ->type_name("NAME");
  app->add_option("--identity", identity,
                  "What names the object: URL and query but for signatures, or the URL's path "
                  "alone (default: query)")
      ->type_name("query|path")
      ->check(OneOf({"query", "path"}));
  app->add_flag("--renew", renew,
                "Give what is mounted of this object already this URL's signature and options too");
  app->add_option("--erofs-options", erofs_options, "Mount options, as mount -o")
      ->type_name("OPTIONS");
  app->add_flag("--suid", suid, "Let the image's setuid and setgid programs be such");
  app->add_flag("--dev", dev, "Let the image's devices be opened");
  app->add_option("--timeout", timeout, "How long the mount may take as a whole (default: 30s)")
      ->type_name("TIME");
  app->add_flag("--persist", persist, "Mount it again after a reboot, until it is unmounted");
  app->add_flag("--json", json, "Print how it ended as JSON: errno, error, message");
  app->add_flag("--quiet", quiet, "Do not say why it waits");
  web.AddTo(app);
  registry.AddTo(app);
  registry.AddMirrorTo(app);
  instance.AddTo(app);
  AddSettings(app, this);
}

Status MountByArguments(const std::vector<std::string>& arguments, const Deadline& deadline) {
  CLI::App app;
  MountOptions options;
  options.AddTo(&app);
  RETURN_IF_ERROR(ParseArguments(&app, arguments));
  ASSIGN_OR_RETURN(ParsedMount parsed, ParseMount(options));
  const auto limit = std::min(parsed.request.timeout, deadline.Remaining());
  parsed.request.timeout = limit;
  return MountParsed(&parsed, Deadline(limit));
}

}  // namespace host
