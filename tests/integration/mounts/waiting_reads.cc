// waiting_reads FILE TRUTH COUNT STRIDE: COUNT threads, each with one 4 KiB read of FILE, all at
// once.
//
// Model    thread i reads at i * STRIDE and compares with the same bytes of TRUTH.  Prints
// "started" once
//          every thread is about to read, and "RIGHT WRONG FAILED" at the end.  Exit 0 if all are
//          right.
// Cost     64 KiB of address space a thread, so that ten thousand fit.

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr size_t kReadSize = 4096;
constexpr size_t kStackSize = 64 << 10;

struct Shared {
  int file;
  int truth;
  uint64_t stride;
  std::atomic<uint64_t> next{0}, right{0}, wrong{0}, failed{0};
};

void* ReadOnce(void* argument) {
  Shared& shared = *static_cast<Shared*>(argument);
  char got[kReadSize], expected[kReadSize];
  const off_t offset = static_cast<off_t>(shared.next.fetch_add(1) * shared.stride);
  const ssize_t count = pread(shared.file, got, kReadSize, offset);
  const ssize_t truth = pread(shared.truth, expected, kReadSize, offset);
  if (count < 0) {
    ++shared.failed;
  } else if (count == truth && memcmp(got, expected, static_cast<size_t>(count)) == 0) {
    ++shared.right;
  } else {
    ++shared.wrong;
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: waiting_reads FILE TRUTH COUNT STRIDE\n");
    return 2;
  }
  Shared shared;
  shared.file = open(argv[1], O_RDONLY | O_CLOEXEC);
  shared.truth = open(argv[2], O_RDONLY | O_CLOEXEC);
  const size_t count = strtoull(argv[3], nullptr, 10);
  shared.stride = strtoull(argv[4], nullptr, 10);
  if (shared.file < 0 || shared.truth < 0) {
    perror("open");
    return 2;
  }
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackSize);
  std::vector<pthread_t> threads(count);
  for (pthread_t& thread : threads) {
    if (const int error = pthread_create(&thread, &attributes, ReadOnce, &shared); error != 0) {
      fprintf(stderr, "pthread_create: %s\n", strerror(error));
      return 2;
    }
  }
  puts("started");
  fflush(stdout);
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  printf("%llu %llu %llu\n", static_cast<unsigned long long>(shared.right),
         static_cast<unsigned long long>(shared.wrong),
         static_cast<unsigned long long>(shared.failed));
  return shared.right == count ? 0 : 1;
}
