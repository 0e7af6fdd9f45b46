/* A daemon in the manner of an image service with a blob cache, against <linux/cachefiles.h> only.
 *
 * blob_daemon DEVICE|fd:N DIRECTORY BLOBS CACHE bind|restore
 *
 * Serves the object of cookie key K from the blob BLOBS/K, whatever its volume.  It fetches whole chunks, and keeps
 * them in a cache of its own format, CACHE/K: a page of flags, one for each chunk, then the chunks, each byte
 * inverted.  A chunk's flag is set after its bytes are written, so that a killed daemon's cache is right.  One
 * thread reads the device, four serve.  $DELAY_MS is how long the origin takes for a request.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/cachefiles.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (256u << 10)
#define CHUNKS_MAX 4096
#define WORKERS 4
#define BLOBS_MAX 64

struct blob {
  unsigned object_id;
  int anon, origin, cache;
  uint64_t size;
  int jobs; /* Under way or waiting; the last one of a closed blob ends it. */
  int closed;
  struct blob *next;
};

struct job {
  struct blob *blob;
  unsigned msg_id;
  uint64_t offset, length;
  struct job *next;
};

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t has_job = PTHREAD_COND_INITIALIZER;
static struct blob *blobs;
static struct job *first_job, **last_job = &first_job;
static const char *blob_directory, *cache_directory;
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

static int open_in(const char *directory, const char *name, int flags) {
  char path[4096];
  snprintf(path, sizeof(path), "%s/%s", directory, name);
  return open(path, flags | O_CLOEXEC, 0600);
}

static void invert(char *bytes, size_t count) {
  for (size_t i = 0; i < count; ++i) bytes[i] = (char)~bytes[i];
}

/* REQUIRES: mu. */
static void drop(struct blob *blob) {
  close(blob->anon);
  close(blob->origin);
  close(blob->cache);
  free(blob);
}

/* The bytes of one chunk: from the cache, or from the origin and then into the cache. */
static size_t load(const struct blob *blob, uint64_t chunk, char *bytes) {
  const off_t where = 4096 + (off_t)(chunk * CHUNK);
  const uint64_t left = blob->size - chunk * CHUNK;
  const size_t size = left < CHUNK ? (size_t)left : CHUNK;
  char flag = 0;
  if (pread(blob->cache, &flag, 1, (off_t)chunk) == 1 && flag == 1) {
    if (pread(blob->cache, bytes, size, where) != (ssize_t)size) fail("cache");
    invert(bytes, size);
    return size;
  }
  if (pread(blob->origin, bytes, size, (off_t)(chunk * CHUNK)) != (ssize_t)size) fail("origin");
  invert(bytes, size);
  if (pwrite(blob->cache, bytes, size, where) != (ssize_t)size) fail("cache");
  flag = 1;
  if (pwrite(blob->cache, &flag, 1, (off_t)chunk) != 1) fail("cache");
  invert(bytes, size);
  return size;
}

static void serve(const struct job *job) {
  usleep(delay_us);
  char *bytes = malloc(CHUNK);
  const struct blob *blob = job->blob;
  for (uint64_t chunk = job->offset / CHUNK; chunk * CHUNK < job->offset + job->length; ++chunk) {
    const size_t size = load(blob, chunk, bytes);
    const uint64_t begin = chunk * CHUNK;
    const uint64_t from = job->offset > begin ? job->offset - begin : 0;
    uint64_t to = job->offset + job->length - begin;
    if (to > size) to = size;
    /* ENOBUFS: the device was closed, or the object was given up. */
    const ssize_t wrote = pwrite(blob->anon, bytes + from, (size_t)(to - from), (off_t)(begin + from));
    if (wrote != (ssize_t)(to - from) && !(wrote < 0 && errno == ENOBUFS)) fail("pwrite");
  }
  free(bytes);
  /* EINVAL: its reader is gone, or the request was served before. */
  if (ioctl(blob->anon, CACHEFILES_IOC_READ_COMPLETE, job->msg_id) != 0 && errno != EINVAL) fail("READ_COMPLETE");
}

static void *work(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&mu);
    while (first_job == NULL) pthread_cond_wait(&has_job, &mu);
    struct job *job = first_job;
    first_job = job->next;
    if (first_job == NULL) last_job = &first_job;
    pthread_mutex_unlock(&mu);
    serve(job);
    pthread_mutex_lock(&mu);
    if (--job->blob->jobs == 0 && job->blob->closed) drop(job->blob);
    pthread_mutex_unlock(&mu);
    free(job);
  }
  return NULL;
}

static void on_open(int device, const struct cachefiles_msg *msg) {
  const struct cachefiles_open *open_msg = (const void *)msg->data;
  const char *volume = (const char *)open_msg->data;
  const char *cookie = volume + open_msg->volume_key_size;
  char name[256];
  snprintf(name, sizeof(name), "%.*s", (int)open_msg->cookie_key_size, cookie);
  struct blob *blob = calloc(1, sizeof(*blob));
  struct stat info;
  blob->object_id = msg->object_id;
  blob->anon = (int)open_msg->fd;
  blob->origin = open_in(blob_directory, name, O_RDONLY);
  blob->cache = open_in(cache_directory, name, O_RDWR | O_CREAT);
  if (blob->origin < 0 || blob->cache < 0 || fstat(blob->origin, &info) != 0 ||
      info.st_size > (off_t)CHUNK * CHUNKS_MAX) {
    say(device, "copen %u,%d", msg->msg_id, -ENOENT);
    drop(blob);
    return;
  }
  blob->size = (uint64_t)info.st_size;
  pthread_mutex_lock(&mu);
  blob->next = blobs;
  blobs = blob;
  pthread_mutex_unlock(&mu);
  printf("open %s %s\n", volume, name);
  /* EINVAL: what waited for it is gone. */
  if (say(device, "copen %u,%lld", msg->msg_id, (long long)info.st_size) != 0 && errno != EINVAL) fail("copen");
}

static struct blob *find(unsigned object_id) {
  for (struct blob *blob = blobs; blob != NULL; blob = blob->next) {
    if (blob->object_id == object_id) return blob;
  }
  abort();
}

static void on_read(const struct cachefiles_msg *msg) {
  const struct cachefiles_read *read_msg = (const void *)msg->data;
  struct job *job = calloc(1, sizeof(*job));
  job->msg_id = msg->msg_id;
  job->offset = read_msg->off;
  job->length = read_msg->len;
  pthread_mutex_lock(&mu);
  job->blob = find(msg->object_id);
  ++job->blob->jobs;
  *last_job = job;
  last_job = &job->next;
  pthread_cond_signal(&has_job);
  pthread_mutex_unlock(&mu);
}

static void on_close(const struct cachefiles_msg *msg) {
  pthread_mutex_lock(&mu);
  struct blob *blob = find(msg->object_id);
  struct blob **at = &blobs;
  while (*at != blob) at = &(*at)->next;
  *at = blob->next;
  blob->closed = 1;
  if (blob->jobs == 0) drop(blob);
  pthread_mutex_unlock(&mu);
  printf("close\n");
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (getenv("DELAY_MS") != NULL) delay_us = 1000 * (unsigned)atoi(getenv("DELAY_MS"));
  blob_directory = argv[3];
  cache_directory = argv[4];
  int device = strncmp(argv[1], "fd:", 3) == 0 ? atoi(argv[1] + 3) : open(argv[1], O_RDWR);
  if (device < 0) fail(argv[1]);
  if (strcmp(argv[5], "restore") == 0) {
    if (say(device, "restore") != 0) fail("restore");
  } else if (say(device, "dir %s", argv[2]) != 0 || say(device, "tag blobs") != 0 ||
             say(device, "bind ondemand") != 0) {
    fail("bind");
  }
  for (int i = 0; i < WORKERS; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0) fail("pthread_create");
  }
  printf("ready\n");
  for (;;) {
    struct pollfd ready = {device, POLLIN, 0};
    char buffer[CACHEFILES_MSG_MAX_SIZE];
    if (poll(&ready, 1, -1) < 0) fail("poll");
    for (;;) {
      ssize_t size = read(device, buffer, sizeof(buffer));
      if (size < 0 && errno == EEXIST) continue; /* The old file of a reopened object is still open. */
      if (size < 0) fail("read");
      if (size == 0) break;
      const struct cachefiles_msg *msg = (const void *)buffer;
      if (msg->opcode == CACHEFILES_OP_OPEN) on_open(device, msg);
      if (msg->opcode == CACHEFILES_OP_READ) on_read(msg);
      if (msg->opcode == CACHEFILES_OP_CLOSE) on_close(msg);
    }
  }
}
