// The two calls of a program that links them, and so needs no preloaded library: C99, or C++.
//
// Model    a program of the kernel's /dev/cachefiles reads the device by holdfast_cachefiles_read
//          and completes a READ by holdfast_cachefiles_read_complete.  All else is the kernel's
//          interface, ids included; holdfast-injectd has nothing to do.  On any other file, and so
//          on the kernel's own device, the two are read(2) and ioctl(2).
// Errors   as read(2) and ioctl(2): -1, and the kernel's errno.
// Threads  thread-safe: no state.
// See      docs/cachefiles-compat.md "Link the two calls"

#ifndef HOLDFAST_CACHEFILES_H_
#define HOLDFAST_CACHEFILES_H_

#if !defined(_GNU_SOURCE) || !defined(__LP64__)
#error "for 64-bit programs that define _GNU_SOURCE before the first #include"
#endif

#include <errno.h>
#include <fcntl.h>
#include <linux/cachefiles.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __cplusplus
#define HOLDFAST_CACHEFILES_CAST(type, value) static_cast<type>(value)
#else
#define HOLDFAST_CACHEFILES_CAST(type, value) ((type)(value))
#endif

// The device's inode number: "holdfast".
#define HOLDFAST_CACHEFILES_DEVICE 0x686f6c6466617374ULL
// The upper half of the inode number of an object's file; the lower one is its object_id.
#define HOLDFAST_CACHEFILES_OBJECT 0x686f6c66ULL
// A read at this offset gives a message; of an OPEN the caller promises to open the file itself.
#define HOLDFAST_CACHEFILES_READ_AND_OPEN (0x6861LL << 32)
// What open_by_handle_at(2) takes for a node of FUSE: FILEID_INO64_GEN in include/linux/exportfs.h.
#define HOLDFAST_CACHEFILES_HANDLE_TYPE 0x81
// READ_COMPLETE with a pointer to the id: the kernel copies a FUSE ioctl's argument itself.
#define HOLDFAST_CACHEFILES_READ_COMPLETE _IOW(0x98, 0x81, uint32_t)

// As struct file_handle; the node of an object's file has 1 in its upper half, its object_id below.
struct holdfast_cachefiles_handle {
  unsigned int bytes;
  int type;
  uint32_t node_high;
  uint32_t node_low;
  uint32_t generation;
};

struct holdfast_cachefiles_failed_open {
  uint32_t msg_id;
  int32_t error;  // Positive.
};
// On the device: the file of an OPEN could not be opened.
#define HOLDFAST_CACHEFILES_OPEN_FAILED _IOW(0x98, 0x82, struct holdfast_cachefiles_failed_open)

// 0 for what is no file.  Asks the kernel's own memory only, never the device's server.
static inline uint64_t holdfast_cachefiles_inode(int fd) {
  const int before = errno;
  struct statx info;
  const int result = statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &info);
  errno = before;
  return result == 0 ? info.stx_ino : 0;
}

static inline int holdfast_cachefiles_is_device(int fd) {
  return holdfast_cachefiles_inode(fd) == HOLDFAST_CACHEFILES_DEVICE;
}

static inline int holdfast_cachefiles_is_object(int fd) {
  return holdfast_cachefiles_inode(fd) >> 32 == HOLDFAST_CACHEFILES_OBJECT;
}

// A read of Holdfast's device.  System calls, since the preloaded library may have the functions.
static inline ssize_t holdfast_cachefiles_read_device(int device, void* buffer, size_t size) {
  struct cachefiles_msg msg;
  const long got = syscall(SYS_pread64, device, buffer, size, HOLDFAST_CACHEFILES_READ_AND_OPEN);
  const long of_open = HOLDFAST_CACHEFILES_CAST(long, sizeof(msg) + sizeof(struct cachefiles_open));
  if (got < of_open) return got;
  memcpy(&msg, buffer, sizeof(msg));
  if (msg.opcode != CACHEFILES_OP_OPEN) return got;
  const struct holdfast_cachefiles_handle handle = {12, HOLDFAST_CACHEFILES_HANDLE_TYPE, 1,
                                                    msg.object_id, 0};
  const long opened = syscall(SYS_open_by_handle_at, device, &handle, O_WRONLY);
  if (opened < 0) {
    const int error = errno;
    const struct holdfast_cachefiles_failed_open failed = {msg.msg_id, error};
    syscall(SYS_ioctl, device, HOLDFAST_CACHEFILES_OPEN_FAILED, &failed);
    errno = error;
    return -1;
  }
  const uint32_t fd = HOLDFAST_CACHEFILES_CAST(uint32_t, opened);
  memcpy(
      HOLDFAST_CACHEFILES_CAST(char*, buffer) + sizeof(msg) + offsetof(struct cachefiles_open, fd),
      &fd, sizeof(fd));
  return got;
}

// READ_COMPLETE on an object's file of Holdfast.
static inline int holdfast_cachefiles_complete_object(int object, uint32_t msg_id) {
  return HOLDFAST_CACHEFILES_CAST(
      int, syscall(SYS_ioctl, object, HOLDFAST_CACHEFILES_READ_COMPLETE, &msg_id));
}

// In the place of read(device, buffer, size).
static inline ssize_t holdfast_cachefiles_read(int device, void* buffer, size_t size) {
  if (!holdfast_cachefiles_is_device(device)) return read(device, buffer, size);
  return holdfast_cachefiles_read_device(device, buffer, size);
}

// In the place of ioctl(object, CACHEFILES_IOC_READ_COMPLETE, msg_id).
static inline int holdfast_cachefiles_read_complete(int object, uint32_t msg_id) {
  if (!holdfast_cachefiles_is_object(object)) {
    return ioctl(object, CACHEFILES_IOC_READ_COMPLETE,
                 HOLDFAST_CACHEFILES_CAST(unsigned long, msg_id));
  }
  return holdfast_cachefiles_complete_object(object, msg_id);
}

#endif  // HOLDFAST_CACHEFILES_H_
