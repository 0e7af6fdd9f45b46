/* A daemon in the manner of a package store, against <linux/cachefiles.h> only.
 *
 * store_daemon DEVICE|fd:N DIRECTORY STORE bind|restore
 *
 * STORE/packages/P is the metadata image of package P, served under the cookie key P.  The contents of all packages
 * are in one object, the slab, of 1 TiB, most of which is a hole: STORE/slab.map has a line "OFFSET LENGTH CHUNK" for
 * each piece, and STORE/chunks/CHUNK its bytes.  One thread; the device is waited for with an edge-triggered epoll.
 * $DELAY_MS is how long a READ takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/cachefiles.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLAB "slab"
#define SLAB_SIZE (1ull << 40)
#define OBJECTS_MAX 64
#define PIECES_MAX 65536

struct piece {
  uint64_t offset, length;
  char chunk[72];
};

struct object {
  unsigned id;
  int anon;
  int image; /* -1: the slab. */
};

static struct piece pieces[PIECES_MAX];
static size_t piece_count;
static struct object objects[OBJECTS_MAX];
static int object_count;
static const char *store;
static unsigned delay_us;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int say(int device, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return write(device, text, (size_t)length) == length ? 0 : -1;
}

static int open_in_store(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof(path), "%s/%s/%s", store, folder, name);
  return open(path, O_RDONLY | O_CLOEXEC);
}

static void read_map(void) {
  char path[4096];
  snprintf(path, sizeof(path), "%s/slab.map", store);
  FILE *map = fopen(path, "r");
  if (map == NULL) fail(path);
  unsigned long long offset, length;
  while (piece_count < PIECES_MAX && fscanf(map, "%llu %llu %71s", &offset, &length, pieces[piece_count].chunk) == 3) {
    pieces[piece_count].offset = offset;
    pieces[piece_count++].length = length;
  }
  fclose(map);
}

static void on_open(int device, const struct cachefiles_msg *msg) {
  const struct cachefiles_open *open_msg = (const void *)msg->data;
  const char *volume = (const char *)open_msg->data;
  char name[256];
  snprintf(name, sizeof(name), "%.*s", (int)open_msg->cookie_key_size, volume + open_msg->volume_key_size);
  struct object object = {msg->object_id, (int)open_msg->fd, -1};
  long long size = (long long)SLAB_SIZE;
  if (strcmp(name, SLAB) != 0) {
    struct stat info;
    object.image = open_in_store("packages", name);
    if (object.image < 0 || fstat(object.image, &info) != 0) {
      say(device, "copen %u,%d", msg->msg_id, -ENOENT);
      close(object.anon);
      return;
    }
    size = (long long)info.st_size;
  }
  if (object_count == OBJECTS_MAX) abort();
  objects[object_count++] = object;
  printf("open %s %s\n", volume, name);
  if (say(device, "copen %u,%lld", msg->msg_id, size) != 0 && errno != EINVAL) fail("copen");
}

/* The slab's bytes at `offset`: those of its pieces, zeros between them. */
static void read_slab(char *bytes, uint64_t offset, uint64_t length) {
  memset(bytes, 0, length);
  for (size_t i = 0; i < piece_count; ++i) {
    const struct piece *piece = &pieces[i];
    const uint64_t begin = piece->offset > offset ? piece->offset : offset;
    const uint64_t piece_end = piece->offset + piece->length;
    const uint64_t end = piece_end < offset + length ? piece_end : offset + length;
    if (begin >= end) continue;
    const int chunk = open_in_store("chunks", piece->chunk);
    if (chunk < 0) fail(piece->chunk);
    const ssize_t got = pread(chunk, bytes + (begin - offset), end - begin, (off_t)(begin - piece->offset));
    if (got != (ssize_t)(end - begin)) fail(piece->chunk);
    close(chunk);
  }
}

static void on_read(const struct cachefiles_msg *msg) {
  const struct cachefiles_read *read_msg = (const void *)msg->data;
  static char bytes[2 << 20];
  int i = 0;
  while (i < object_count && objects[i].id != msg->object_id) ++i;
  if (i == object_count || read_msg->len > sizeof(bytes)) abort();
  const struct object *object = &objects[i];
  usleep(delay_us);
  if (object->image < 0) {
    read_slab(bytes, read_msg->off, read_msg->len);
  } else if (pread(object->image, bytes, read_msg->len, (off_t)read_msg->off) != (ssize_t)read_msg->len) {
    fail("package");
  }
  /* As a pipe from a network would: in parts. */
  const uint64_t half = read_msg->len / 2 / 4096 * 4096;
  const ssize_t first = pwrite(object->anon, bytes, half, (off_t)read_msg->off);
  const ssize_t second = pwrite(object->anon, bytes + half, read_msg->len - half, (off_t)(read_msg->off + half));
  if ((half != 0 && first != (ssize_t)half) || second != (ssize_t)(read_msg->len - half)) {
    if (errno != ENOBUFS) fail("pwrite");
  }
  if (ioctl(object->anon, CACHEFILES_IOC_READ_COMPLETE, msg->msg_id) != 0 && errno != EINVAL) fail("READ_COMPLETE");
}

static void on_close(const struct cachefiles_msg *msg) {
  for (int i = 0; i < object_count; ++i) {
    if (objects[i].id != msg->object_id) continue;
    close(objects[i].anon);
    if (objects[i].image >= 0) close(objects[i].image);
    objects[i] = objects[--object_count];
    printf("close\n");
    return;
  }
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (getenv("DELAY_MS") != NULL) delay_us = 1000 * (unsigned)atoi(getenv("DELAY_MS"));
  store = argv[3];
  read_map();
  int device = strncmp(argv[1], "fd:", 3) == 0 ? atoi(argv[1] + 3) : open(argv[1], O_RDWR);
  int waiter = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event edge = {EPOLLIN | EPOLLET, {0}};
  if (device < 0 || waiter < 0 || epoll_ctl(waiter, EPOLL_CTL_ADD, device, &edge) != 0) fail(argv[1]);
  if (strcmp(argv[4], "restore") == 0) {
    if (say(device, "restore") != 0) fail("restore");
  } else if (say(device, "dir %s", argv[2]) != 0 || say(device, "tag store") != 0 ||
             say(device, "bind ondemand") != 0) {
    fail("bind");
  }
  printf("ready\n");
  for (;;) {
    char buffer[CACHEFILES_MSG_MAX_SIZE];
    ssize_t size;
    while ((size = read(device, buffer, sizeof(buffer))) != 0) {
      if (size < 0 && errno == EEXIST) continue; /* The old file of a reopened object is still open. */
      if (size < 0) fail("read");
      const struct cachefiles_msg *msg = (const void *)buffer;
      if (msg->opcode == CACHEFILES_OP_OPEN) on_open(device, msg);
      if (msg->opcode == CACHEFILES_OP_READ) on_read(msg);
      if (msg->opcode == CACHEFILES_OP_CLOSE) on_close(msg);
    }
    if (epoll_wait(waiter, &edge, 1, -1) < 0 && errno != EINTR) fail("epoll_wait");
  }
}
