// recovery_reader FILE TRUTH COUNT: COUNT threads, each with one O_DIRECT read of one block of
// FILE.
//
// Model    thread i reads block i and compares it with TRUTH's.  Prints when the first and when the
//          last read was answered (CLOCK_MONOTONIC, ns) and how many were not right.
// Cost     64 KiB of address space a thread, so that ten thousand fit.

#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

namespace {

constexpr size_t kBlock = 4096;
constexpr size_t kStackSize = 64 << 10;

int file, truth;
std::atomic<size_t> next_block{0}, not_right{0};
std::vector<int64_t> answered;

void* ReadOne(void*) {
  alignas(kBlock) char got[kBlock];
  char expected[kBlock];
  const size_t block = next_block++;
  const auto offset = static_cast<off_t>(block * kBlock);
  const ssize_t count = pread(file, got, kBlock, offset);
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  answered[block] = now.tv_sec * 1'000'000'000 + now.tv_nsec;
  const ssize_t right = pread(truth, expected, kBlock, offset);
  if (count <= 0 || count != right || memcmp(got, expected, kBlock) != 0) ++not_right;
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: recovery_reader FILE TRUTH COUNT\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  file = open(argv[1], O_RDONLY | O_CLOEXEC | O_DIRECT);
  truth = open(argv[2], O_RDONLY | O_CLOEXEC);
  if (file < 0 || truth < 0) {
    perror("open");
    return 2;
  }
  const size_t count = strtoull(argv[3], nullptr, 10);
  answered.resize(count);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackSize);
  std::vector<pthread_t> threads(count);
  for (pthread_t& thread : threads) {
    if (const int error = pthread_create(&thread, &attributes, ReadOne, nullptr); error != 0) {
      fprintf(stderr, "pthread_create: %s\n", strerror(error));
      return 2;
    }
  }
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  const auto [first, last] = std::minmax_element(answered.begin(), answered.end());
  printf("%ld %ld %zu\n", *first, *last, not_right.load());
  return 0;
}
