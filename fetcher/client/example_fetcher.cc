// A complete fetcher on the client library alone: serves the files of a directory as objects.
//
//   holdfast-example-fetcher RUN_DIR/device.sock DIRECTORY
//
// Object `cookie` of any volume is the file DIRECTORY/cookie.  It shows the whole protocol: OPEN is
// answered with a size, READ by writing bytes into the data file and declaring them, CLOSE by
// closing.  What a real fetcher adds is patience: reads that take long, retries, several at once.

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "cachecore/system/process_limits.h"
#include "fetcher/client/client.h"

using fetcher::ByteRange;
using fetcher::DeviceClient;
using fetcher::MsgId;
using fetcher::ObjectId;
using fetcher::OpenRequest;
using fetcher::Status;
using fetcher::UniqueFd;

class DirectoryFetcher : public fetcher::DeviceHandler {
 public:
  DirectoryFetcher(DeviceClient* client, std::string directory)
      : client_(client), directory_(std::move(directory)) {}

  void OnOpen(OpenRequest open) override {
    // Keys come from outside: one that could leave the directory is refused.
    const std::string& key = open.cookie_key;
    const bool plain = key.find('/') == std::string::npos && key[0] != '.';
    UniqueFd source(plain ? ::open((directory_ + "/" + key).c_str(), O_RDONLY | O_CLOEXEC) : -1);
    struct stat info;
    if (!source.valid() || fstat(source.get(), &info) != 0) {
      // The errno and the sentence reach every command that waits for this object.
      client_->CopenError(open.msg_id, ENOENT, directory_ + ": no object of this name");
      return;
    }
    client_->Copen(open.msg_id, static_cast<uint64_t>(info.st_size));
    objects_[open.object_id] = {std::move(source), std::move(open.data_fd)};
  }

  void OnRead(MsgId msg_id, ObjectId object_id, ByteRange range) override {
    const auto& [source, data] = objects_[object_id];
    std::vector<char> buffer(range.size());  // A READ covers at most some MiB.
    const auto offset = static_cast<off_t>(range.begin);
    const ssize_t got = pread(source.get(), buffer.data(), buffer.size(), offset);
    if (got != static_cast<ssize_t>(buffer.size()) ||
        pwrite(data.get(), buffer.data(), buffer.size(), offset) != got) {
      client_->Fail(object_id, msg_id, EIO, directory_ + ": could not copy a range");
      return;
    }
    client_->Filled(object_id, range);     // First the bytes, then the word that they are there,
    client_->Complete(object_id, msg_id);  // then that this READ is done with.
  }

  void OnClose(ObjectId object_id) override { objects_.erase(object_id); }

 private:
  DeviceClient* const client_;
  const std::string directory_;
  std::map<ObjectId, std::pair<UniqueFd, UniqueFd>> objects_;  // Source, data file.
};

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s DEVICE_SOCKET DIRECTORY\n", argv[0]);
    return 2;
  }
  cachecore::RaiseDescriptorLimit();  // An object holds two.
  auto client = DeviceClient::Connect(argv[1], /*credits=*/64);
  Status status = client.ok() ? Status() : client.status();
  if (status.ok()) {
    DirectoryFetcher fetcher(client->get(), argv[2]);
    while (status.ok()) {
      const short events = client.value()->WantsWrite() ? POLLIN | POLLOUT : POLLIN;
      pollfd device = {client.value()->fd(), events, 0};
      poll(&device, 1, /*timeout=*/-1);
      status = client.value()->ReadMessages(&fetcher);
      if (status.ok()) status = client.value()->Flush();
    }
  }
  // After a restart of the daemon a real fetcher connects again; everything is then delivered
  // again.
  std::fprintf(stderr, "%s: %s\n", argv[0], status.message().c_str());
  return 1;
}
