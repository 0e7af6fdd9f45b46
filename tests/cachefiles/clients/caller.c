/* Makes calls of the kernel's on-demand cachefiles interface, written against <linux/cachefiles.h> only.
 *
 * Each packet of the SOCK_SEQPACKET socket that is descriptor 3 is a call: a letter and its argument.
 *   O PATH   opens the device; the answer carries the descriptor
 *   C        closes it
 *   W TEXT   writes a command
 *   R SIZE   reads a message into SIZE bytes (u32); the answer carries the descriptor of an OPEN
 *   V SIZE   as R, by readv into three parts
 *   A SIZE   as R, by pread
 *   E MS     the events of the device's next edge within MS milliseconds (s32), or 0
 *   D PATH   makes PATH the working directory
 *   N FULL   no descriptor can be made any more (u32: 1), or some can again (0)
 * On the descriptor that comes with the packet:
 *   I ID     READ_COMPLETE of ID (u32)
 *   P SHIFT OFFSET LENGTH (u32, u64, u64)  writes LENGTH bytes of the memory that is descriptor 4, from SHIFT on;
 *            at the position when OFFSET is 2^64-1
 *   L WHENCE OFFSET (u32, u64)             lseek
 *   Q EVENTS MS (u32, s32)                 poll, of the device when there is none
 * The answer is the result or minus the errno (s32), then the bytes that were read.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/cachefiles.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SOCKET = 3, MEMORY = 4, ROOM = 16384, SHARED_SIZE = 4 << 20 };

static char packet[ROOM + 1];
static char answer[4 + ROOM];
static char *shared;
static int edges = -1;
static union {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int))];
} control;

/* The packet's size; *fd is the descriptor that came with it, or -1. */
static ssize_t receive(int *fd) {
  struct iovec part = {packet, ROOM};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = sizeof(control.bytes)};
  ssize_t size = recvmsg(SOCKET, &message, MSG_CMSG_CLOEXEC);
  struct cmsghdr *first = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  *fd = -1;
  if (first != NULL) memcpy(fd, CMSG_DATA(first), sizeof(*fd));
  if (size > 0) packet[size] = 0;
  return size;
}

static void reply(int32_t result, size_t size, int fd) {
  memcpy(answer, &result, sizeof(result));
  struct iovec part = {answer, sizeof(result) + size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_LEN(sizeof(fd));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
  }
  if (sendmsg(SOCKET, &message, MSG_NOSIGNAL) < 0) exit(1);
}

static ssize_t read_in_parts(int device, uint32_t room) {
  char first[25], second[2];
  struct iovec parts[] = {{first, sizeof(first)}, {second, sizeof(second)}, {answer + 4 + 27, room - 27}};
  ssize_t size = readv(device, parts, 3);
  memcpy(answer + 4, first, sizeof(first));
  memcpy(answer + 4 + sizeof(first), second, sizeof(second));
  return size;
}

static void read_message(char call, int device, uint32_t room) {
  if (room > ROOM) abort();
  ssize_t size = call == 'V'   ? read_in_parts(device, room)
                 : call == 'A' ? pread(device, answer + 4, room, 0)
                               : read(device, answer + 4, room);
  if (size < 0) {
    reply(-errno, 0, -1);
    return;
  }
  struct cachefiles_msg msg;
  struct cachefiles_open open_msg;
  memset(&msg, 0xff, sizeof(msg));
  if ((size_t)size >= sizeof(msg)) memcpy(&msg, answer + 4, sizeof(msg));
  int is_open = msg.opcode == CACHEFILES_OP_OPEN && msg.len == (uint32_t)size;
  if (is_open) memcpy(&open_msg, answer + 4 + sizeof(msg), sizeof(open_msg));
  reply((int32_t)size, (size_t)size, is_open ? (int)open_msg.fd : -1);
  if (is_open) close((int)open_msg.fd);
}

static long next_edge(int device, int timeout) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
  if (edges < 0) {
    edges = epoll_create1(EPOLL_CLOEXEC);
    if (edges < 0 || epoll_ctl(edges, EPOLL_CTL_ADD, device, &event) != 0) return -1;
  }
  int count = epoll_wait(edges, &event, 1, timeout);
  return count == 1 ? (long)event.events : count;
}

static long poll_one(int fd, uint32_t events, int timeout) {
  struct pollfd one = {.fd = fd, .events = (short)events};
  return poll(&one, 1, timeout) < 0 ? -1 : one.revents;
}

static long write_object(int fd, uint32_t shift, const char *argument) {
  uint64_t offset, length;
  memcpy(&offset, argument, sizeof(offset));
  memcpy(&length, argument + sizeof(offset), sizeof(length));
  if (shift + length > SHARED_SIZE) abort();
  return offset == UINT64_MAX ? write(fd, shared + shift, length) : pwrite(fd, shared + shift, length, (off_t)offset);
}

static long fill_descriptor_table(int is_full) {
  struct rlimit limit;
  int free_one = dup(0);
  if (free_one >= 0) close(free_one);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
  limit.rlim_cur = is_full ? (rlim_t)free_one : limit.rlim_max;
  return setrlimit(RLIMIT_NOFILE, &limit);
}

/* The calls that answer with a number only. */
static long number_of(int device, int fd, size_t size) {
  uint32_t number;
  uint64_t offset;
  int timeout;
  memcpy(&number, packet + 1, sizeof(number));
  memcpy(&offset, packet + 5, sizeof(offset));
  memcpy(&timeout, packet + 5, sizeof(timeout));
  switch (packet[0]) {
    case 'C':
      return close(device);
    case 'W':
      return write(device, packet + 1, size - 1);
    case 'E':
      return next_edge(device, (int)number);
    case 'D':
      return chdir(packet + 1);
    case 'N':
      return fill_descriptor_table((int)number);
    case 'I':
      return ioctl(fd, CACHEFILES_IOC_READ_COMPLETE, number);
    case 'P':
      return write_object(fd, number, packet + 5);
    case 'L':
      return lseek(fd, (off_t)offset, (int)number);
    case 'Q':
      return poll_one(fd < 0 ? device : fd, number, timeout);
    default:
      abort();
  }
}

int main(void) {
  int device = -1;
  shared = mmap(NULL, SHARED_SIZE, PROT_READ, MAP_SHARED, MEMORY, 0);
  if (shared == MAP_FAILED) return 1;
  for (;;) {
    int fd;
    ssize_t size = receive(&fd);
    if (size <= 0) return 0;
    if (packet[0] == 'O') {
      device = open(packet + 1, O_RDWR | O_CLOEXEC);
      reply(device < 0 ? -errno : 0, 0, device);
    } else if (strchr("RVA", packet[0]) != NULL) {
      uint32_t room;
      memcpy(&room, packet + 1, sizeof(room));
      read_message(packet[0], device, room);
    } else {
      long result = number_of(device, fd, (size_t)size);
      if (result < 0) result = -errno;
      if (fd >= 0) close(fd); /* Before the answer: the next call may be to see its last close. */
      reply((int32_t)result, 0, -1);
    }
  }
}
