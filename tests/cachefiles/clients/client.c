/* A daemon for the kernel's on-demand cachefiles mode, written against <linux/cachefiles.h> only.
 *
 * client DEVICE|fd:N DIRECTORY SOURCES [bind|restore] [STOP_AT] [DELAY]
 *
 * Serves the object of cookie key K from SOURCES/K.  `bind` starts a cache in DIRECTORY, `restore`
 * goes on with a device that another process has bound.  Prints a line for each message; at the
 * STOP_ATth READ it prints "stopped" and answers nothing any more.  It takes DELAY ms for each READ.
 */
#include <fcntl.h>
#include <linux/cachefiles.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS 1024

static struct {
  unsigned object_id;
  int anon;
  int source;
} slots[SLOTS];
static int slot_count;
static int reads_left = -1;
static int delay_ms = 0;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void say(int device, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (write(device, text, (size_t)length) != length) fail(text);
}

static void on_open(int device, const struct cachefiles_msg *msg, const char *sources) {
  const struct cachefiles_open *open_msg = (const void *)msg->data;
  const char *volume = (const char *)open_msg->data;
  const char *cookie = volume + open_msg->volume_key_size;
  char path[4096];
  struct stat info;
  snprintf(path, sizeof(path), "%s/%s", sources, cookie);
  int source = open(path, O_RDONLY | O_CLOEXEC);
  if (source < 0 || fstat(source, &info) != 0) {
    say(device, "copen %u,-2", msg->msg_id);
    close((int)open_msg->fd);
    return;
  }
  if (slot_count == SLOTS) abort();
  slots[slot_count].object_id = msg->object_id;
  slots[slot_count].anon = (int)open_msg->fd;
  slots[slot_count++].source = source;
  printf("open %s %s\n", volume, cookie);
  say(device, "copen %u,%lld", msg->msg_id, (long long)info.st_size);
}

static void on_read(const struct cachefiles_msg *msg) {
  const struct cachefiles_read *read_msg = (const void *)msg->data;
  static char buffer[2 << 20];
  int i = 0;
  while (i < slot_count && slots[i].object_id != msg->object_id) ++i;
  if (i == slot_count) abort();
  printf("id %u of %u\n", msg->msg_id, msg->object_id);
  printf("read %llu %llu\n", (unsigned long long)read_msg->off, (unsigned long long)read_msg->len);
  if (reads_left > 0 && --reads_left == 0) {
    printf("stopped\n");
    for (;;) pause();
  }
  if (delay_ms > 0) poll(NULL, 0, delay_ms);
  if (read_msg->len > sizeof(buffer)) abort();
  ssize_t got = pread(slots[i].source, buffer, read_msg->len, (off_t)read_msg->off);
  if (got != (ssize_t)read_msg->len) abort();
  if (pwrite(slots[i].anon, buffer, (size_t)got, (off_t)read_msg->off) != got) fail("pwrite");
  if (ioctl(slots[i].anon, CACHEFILES_IOC_READ_COMPLETE, msg->msg_id) != 0) fail("READ_COMPLETE");
}

static void on_close(const struct cachefiles_msg *msg) {
  for (int i = 0; i < slot_count; ++i) {
    if (slots[i].object_id != msg->object_id) continue;
    close(slots[i].anon);
    close(slots[i].source);
    slots[i] = slots[--slot_count];
    printf("close\n");
    return;
  }
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  int device = strncmp(argv[1], "fd:", 3) == 0 ? atoi(argv[1] + 3) : open(argv[1], O_RDWR);
  if (device < 0) fail(argv[1]);
  if (argc > 5) reads_left = atoi(argv[5]);
  if (argc > 6) delay_ms = atoi(argv[6]);
  if (strcmp(argv[4], "restore") == 0) {
    say(device, "restore");
  } else {
    say(device, "dir %s", argv[2]);
    say(device, "tag test");
    say(device, "bind ondemand");
  }
  printf("ready\n");
  for (;;) {
    struct pollfd ready = {device, POLLIN, 0};
    char buffer[CACHEFILES_MSG_MAX_SIZE];
    if (poll(&ready, 1, -1) < 0) fail("poll");
    for (;;) {
      memset(buffer, 0, sizeof(buffer));
      ssize_t size = read(device, buffer, sizeof(buffer));
      if (size < 0) fail("read");
      if (size == 0) break;
      const struct cachefiles_msg *msg = (const void *)buffer;
      if (size != (ssize_t)msg->len) abort();
      if (msg->opcode == CACHEFILES_OP_OPEN) on_open(device, msg, argv[3]);
      if (msg->opcode == CACHEFILES_OP_READ) on_read(msg);
      if (msg->opcode == CACHEFILES_OP_CLOSE) on_close(msg);
    }
  }
}
