// FakeDaemon: holdfastd's end of the device, played by a test.
//
// Model    listens on a socket in a directory of its own, greets each client, records every
//          command and answers each packet (with success, unless told otherwise).  Driven by the
//          test's thread: it does something only inside its calls.
// Errors   a wait that sees nothing for kPatience fails the test with what did arrive.

#ifndef TESTS_FETCHER_ENGINE_FAKE_DAEMON_H_
#define TESTS_FETCHER_ENGINE_FAKE_DAEMON_H_

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/protocol/wire.h"

// Without facts, whose lines would stand between those that most tests are about, and without
// through, as a daemon that does not serve so.
inline constexpr uint32_t kFakeCaps =
    cachecore::wire::kAllCaps &
    ~(cachecore::wire::kCapFacts | cachecore::wire::kCapThrough | cachecore::wire::kCapCount);

inline cachecore::wire::HelloMessage Hello(int32_t status,
                                           uint32_t version = cachecore::wire::kProtocolVersion,
                                           uint32_t caps = kFakeCaps) {
  return {status, version, caps, {42}};
}

class FakeDaemon {
 public:
  static constexpr std::chrono::seconds kPatience{20};

  FakeDaemon();
  ~FakeDaemon();
  std::string path() const { return dir_ + "/device.sock"; }
  const std::string& dir() const { return dir_; }

  // Waits for a connection and sends `hello`.
  void Accept(cachecore::wire::HelloMessage hello = Hello(0));
  void Disconnect() { peer_.Reset(); }

  // The same with a connection that lives on after its fetcher: waits for `resume`.
  void AcceptHeir();

  // Sends any bytes, with a descriptor if it is not -1.
  void SendBytes(const std::string& bytes, int fd = -1);
  void Send(const cachecore::wire::Message& message, int fd = -1);
  // Sends an OPEN with a new, empty data file, which data() shows.
  void Open(uint32_t msg, uint32_t object, const std::string& volume, const std::string& cookie,
            const std::string& attr = "");
  void Read(uint32_t msg, uint32_t object, uint64_t offset, uint64_t length);
  void ReadAhead(uint32_t msg, uint32_t object, uint64_t offset, uint64_t length);
  std::string Data(uint32_t object, cachecore::ByteRange range) const;
  uint64_t DataSize(uint32_t object) const;

  // What every command whose line starts with `prefix` is answered with.
  void Refuse(const std::string& prefix, int error) { refusals_[prefix] = error; }

  // Waits for the next command but caps, credit and restore, and returns its line.
  std::string NextLine();
  // The next line that does not start with `prefix`.
  std::string NextLineBut(const std::string& prefix);
  // Takes everything up to and including the first line that starts with `prefix`.
  std::vector<std::string> LinesUntil(const std::string& prefix);
  // Takes what comes until the connection ends.  Fails the test if it does not.
  void WaitForEnd();
  // Waits until `done` holds, answering meanwhile.
  void WaitUntil(const std::function<bool()>& done);

  // The descriptors that have come, in order.
  std::vector<cachecore::UniqueFd>& files() { return files_; }

  // Every packet received, and what was counted of it.
  const std::vector<std::string>& packets() const { return packets_; }
  uint32_t credits() const { return credits_; }
  uint32_t restores() const { return restores_; }

 private:
  // Receives one packet.  False when the connection has ended.
  bool Pump(std::chrono::milliseconds timeout);

  std::string dir_;
  cachecore::UniqueFd listener_;
  cachecore::UniqueFd peer_;
  std::map<uint32_t, cachecore::UniqueFd> data_;
  std::map<std::string, int> refusals_;
  std::vector<cachecore::UniqueFd> files_;
  std::deque<std::string> lines_;
  std::vector<std::string> packets_;
  uint32_t next_packet_ = 0;
  uint32_t resumed_ = 0;  // The last `resume`'s token.
  uint32_t credits_ = 0;
  uint32_t restores_ = 0;
};

#endif  // TESTS_FETCHER_ENGINE_FAKE_DAEMON_H_
