/* A thread that waits in a read is cancelled: exits 0.  SIGALRM kills the program when the read goes
 * on. */
#include <pthread.h>
#include <unistd.h>

#define SECONDS 10

static int waits[2];

static void *read_for_ever(void *unused) {
  char byte;
  (void)unused;
  while (read(waits[0], &byte, 1) != 0) {
  }
  return NULL;
}

int main(void) {
  pthread_t thread;
  void *result = NULL;
  if (pipe(waits) != 0 || pthread_create(&thread, NULL, read_for_ever, NULL) != 0) return 1;
  alarm(SECONDS);
  if (pthread_cancel(thread) != 0 || pthread_join(thread, &result) != 0) return 1;
  return result == PTHREAD_CANCELED ? 0 : 1;
}
