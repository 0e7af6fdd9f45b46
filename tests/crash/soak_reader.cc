// soak_reader MODE TARGET TRUTH THREADS SEED WAITS: reads TARGET and compares every byte with TRUTH
// until its stdin ends.
//
// Model    MODE pread or direct: TARGET and TRUTH are files, read at random places, through the
//          page cache or with O_DIRECT.  MODE tree or map: they are directories of the same files,
//          read at random places by pread or through a mapping.  MODE walk: every directory is
//          listed, every file looked up, opened and read from begin to end.
//          WAITS gets, per thread, the number and then the begin and end (CLOCK_MONOTONIC, ns) of
//          each operation longer than kWaitWorthNoting.  Prints "reads bytes errors wrong" at the
//          end.
// Errors   exit 1: an error or a wrong byte, the first of them on stderr; 3: an operation took
//          longer than kStuckAfter.  A mapping that fails is a SIGBUS.

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kWaitWorthNoting = kMillisecond;
constexpr int64_t kStuckAfter = 60'000 * kMillisecond;
constexpr size_t kReadMax = 64 << 10;
constexpr size_t kBlock = 4096;

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

std::atomic<bool> stopping{false};

class Reader {
 public:
  Reader(std::string target, std::string truth, uint64_t seed,
         const std::vector<std::string>& names)
      : target_(std::move(target)), truth_(std::move(truth)), random_(seed), names_(names) {
    buffer_ = static_cast<char*>(std::aligned_alloc(kBlock, kReadMax));
    expected_ = static_cast<char*>(std::aligned_alloc(kBlock, kReadMax));
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() {
    free(buffer_);
    free(expected_);
  }

  void Run(const std::string& mode) {
    if (mode == "pread") ReadAtRandom(target_, truth_, 0, SIZE_MAX);
    if (mode == "direct") ReadAtRandom(target_, truth_, O_DIRECT, SIZE_MAX);
    while (!stopping) {
      if (mode == "tree") ReadSomeFile();
      if (mode == "map") MapSomeFile();
      if (mode == "walk") Walk("");
    }
  }

  // For the main thread, at any time.
  bool IsStuck(int64_t now) const {
    const int64_t since = busy_since_.load();
    return since != 0 && now - since > kStuckAfter;
  }
  // Once the thread has ended.
  const std::vector<std::pair<int64_t, int64_t>>& waits() const { return waits_; }
  uint64_t reads() const { return reads_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t errors() const { return errors_; }
  uint64_t wrong() const { return wrong_; }

 private:
  template <typename Operation>
  auto Timed(Operation operation) {
    const int64_t begin = Now();
    busy_since_ = begin;
    const auto result = operation();
    const int error = errno;
    busy_since_ = 0;
    const int64_t end = Now();
    if (end - begin > kWaitWorthNoting) waits_.emplace_back(begin, end);
    errno = error;
    return result;
  }

  void Failed(const std::string& what) {
    if (errors_++ == 0) fprintf(stderr, "%s: %s\n", what.c_str(), strerror(errno));
  }
  void Wrong(const std::string& what) {
    if (wrong_++ == 0) fprintf(stderr, "%s: not what it should be\n", what.c_str());
  }
  uint64_t Below(uint64_t limit) { return limit == 0 ? 0 : random_() % limit; }

  void Compare(const std::string& name, int truth, ssize_t got, size_t size, off_t offset) {
    ++reads_;
    if (got < 0) return Failed(name + " at " + std::to_string(offset));
    const ssize_t right = pread(truth, expected_, size, offset);
    if (got != right || memcmp(buffer_, expected_, static_cast<size_t>(got)) != 0) {
      return Wrong(name + " at " + std::to_string(offset));
    }
    bytes_ += static_cast<uint64_t>(got);
  }

  // Opens both; false if one cannot be.
  bool Open(const std::string& target, const std::string& truth, int flags, int fds[2]) {
    fds[1] = open(truth.c_str(), O_RDONLY | O_CLOEXEC);
    fds[0] = Timed([&] { return open(target.c_str(), O_RDONLY | O_CLOEXEC | flags); });
    if (fds[0] >= 0 && fds[1] >= 0) return true;
    Failed(target);
    if (fds[0] >= 0) close(fds[0]);
    if (fds[1] >= 0) close(fds[1]);
    return false;
  }

  void ReadAtRandom(const std::string& target, const std::string& truth, int flags, size_t most) {
    int fds[2];
    if (!Open(target, truth, flags, fds)) return;
    struct stat info;
    fstat(fds[1], &info);
    const auto blocks = (static_cast<uint64_t>(info.st_size) + kBlock - 1) / kBlock;
    for (size_t i = 0; i < most && !stopping; ++i) {
      const auto offset = static_cast<off_t>(Below(blocks) * kBlock);
      const size_t size = kBlock << Below(5);
      const ssize_t got = Timed([&] { return pread(fds[0], buffer_, size, offset); });
      Compare(target, fds[1], got, size, offset);
    }
    close(fds[0]);
    close(fds[1]);
  }

  void ReadSomeFile() {
    const std::string& name = names_[Below(names_.size())];
    ReadAtRandom(target_ + name, truth_ + name, 0, 8);
  }

  void MapSomeFile() {
    const std::string& name = names_[Below(names_.size())];
    int fds[2];
    if (!Open(target_ + name, truth_ + name, 0, fds)) return;
    struct stat info;
    fstat(fds[1], &info);
    const auto length = static_cast<size_t>(info.st_size);
    void* map = mmap(nullptr, length + 1, PROT_READ, MAP_SHARED, fds[0], 0);
    if (map == MAP_FAILED) {
      Failed("mapping " + name);
    } else {
      for (int i = 0; i < 8 && length != 0 && !stopping; ++i) {
        const size_t offset = Below(length);
        const size_t size = std::min(length - offset, kReadMax);
        Timed([&] { return memcpy(buffer_, static_cast<const char*>(map) + offset, size); });
        Compare(name, fds[1], static_cast<ssize_t>(size), size, static_cast<off_t>(offset));
      }
      munmap(map, length + 1);
    }
    close(fds[0]);
    close(fds[1]);
  }

  void ReadWhole(const std::string& name) {
    int fds[2];
    if (!Open(target_ + name, truth_ + name, 0, fds)) return;
    for (off_t offset = 0; !stopping; offset += static_cast<off_t>(kReadMax)) {
      const ssize_t got = Timed([&] { return pread(fds[0], buffer_, kReadMax, offset); });
      Compare(name, fds[1], got, kReadMax, offset);
      if (got < static_cast<ssize_t>(kReadMax)) break;
    }
    close(fds[0]);
    close(fds[1]);
  }

  std::vector<std::string> List(const std::string& path) {
    std::vector<std::string> names;
    DIR* directory = opendir(path.c_str());
    if (directory == nullptr) {
      Failed(path);
      return names;
    }
    errno = 0;
    while (const dirent* entry = Timed([&] { return readdir(directory); })) {
      names.emplace_back(entry->d_name);
      errno = 0;
    }
    if (errno != 0) Failed("listing " + path);
    closedir(directory);
    std::sort(names.begin(), names.end());
    return names;
  }

  void Walk(const std::string& below) {
    ++reads_;
    std::vector<std::string> names = List(target_ + below);
    if (names != List(truth_ + below)) Wrong("the list of " + below);
    std::shuffle(names.begin(), names.end(), random_);
    for (const std::string& entry : names) {
      if (stopping) return;
      if (entry == "." || entry == "..") continue;
      const std::string name = below + "/" + entry;
      struct stat got, right;
      if (Timed([&] { return lstat((target_ + name).c_str(), &got); }) != 0 ||
          lstat((truth_ + name).c_str(), &right) != 0) {
        Failed(name);
        continue;
      }
      if (got.st_mode != right.st_mode || (S_ISREG(got.st_mode) && got.st_size != right.st_size)) {
        Wrong("the attributes of " + name);
      }
      if (S_ISDIR(got.st_mode)) Walk(name);
      if (S_ISREG(got.st_mode)) ReadWhole(name);
    }
  }

  const std::string target_;
  const std::string truth_;
  std::mt19937_64 random_;
  const std::vector<std::string>& names_;
  char* buffer_;
  char* expected_;
  std::atomic<int64_t> busy_since_{0};
  std::vector<std::pair<int64_t, int64_t>> waits_;
  uint64_t reads_ = 0, bytes_ = 0, errors_ = 0, wrong_ = 0;
};

// The regular files below `root`, as "/a/b".
std::vector<std::string> FilesBelow(const std::string& root) {
  std::vector<std::string> names;
  if (!std::filesystem::is_directory(root)) return names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.is_regular_file() && !entry.is_symlink()) {
      names.push_back(entry.path().string().substr(root.size()));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Until `ended`: exits when a reader is stuck.
template <typename Ended>
void Watch(const std::vector<std::unique_ptr<Reader>>& readers, Ended ended) {
  while (!ended()) {
    const int64_t now = Now();
    for (size_t i = 0; i < readers.size(); ++i) {
      if (!readers[i]->IsStuck(now)) continue;
      fprintf(stderr, "reader %zu is stuck\n", i);
      _exit(3);
    }
  }
}

void WriteWaits(const std::string& path, const std::vector<std::unique_ptr<Reader>>& readers) {
  std::ofstream file(path, std::ios::binary);
  const auto put = [&file](int64_t number) {
    file.write(reinterpret_cast<const char*>(&number), sizeof(number));
  };
  for (const auto& reader : readers) {
    put(static_cast<int64_t>(reader->waits().size()));
    for (const auto& [begin, end] : reader->waits()) {
      put(begin);
      put(end);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: soak_reader MODE TARGET TRUTH THREADS SEED WAITS\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::vector<std::string> names = FilesBelow(argv[3]);
  const uint64_t count = strtoull(argv[4], nullptr, 10), seed = strtoull(argv[5], nullptr, 10);
  std::vector<std::unique_ptr<Reader>> readers;
  std::vector<std::thread> threads;
  std::atomic<uint64_t> running{count};
  const int ended = eventfd(0, EFD_NONBLOCK);
  for (uint64_t i = 0; i < count; ++i) {
    readers.push_back(std::make_unique<Reader>(argv[2], argv[3], seed * 64 + i, names));
  }
  for (const auto& reader : readers) {
    threads.emplace_back([&running, &reader, ended, mode = std::string(argv[1])] {
      reader->Run(mode);
      --running;
      eventfd_write(ended, 1);
    });
  }
  pollfd events[] = {{ended, POLLIN, 0}, {STDIN_FILENO, POLLIN | POLLHUP, 0}};
  // Waits for a reader's end and, of two events, for stdin; no longer than Watch may look away.
  const auto has_input = [&](nfds_t watched) {
    const bool any = poll(events, watched, 500) > 0;
    eventfd_t ends;
    (void)eventfd_read(ended, &ends);
    return any && watched == 2 && events[1].revents != 0;
  };
  Watch(readers, [&] { return running == 0 || has_input(2); });
  stopping = true;
  Watch(readers, [&] { return running == 0 || has_input(1); });
  for (std::thread& thread : threads) thread.join();
  WriteWaits(argv[6], readers);
  uint64_t reads = 0, bytes = 0, errors = 0, wrong = 0;
  for (const auto& reader : readers) {
    reads += reader->reads();
    bytes += reader->bytes();
    errors += reader->errors();
    wrong += reader->wrong();
  }
  printf("%lu %lu %lu %lu\n", reads, bytes, errors, wrong);
  return errors + wrong == 0 ? 0 : 1;
}
