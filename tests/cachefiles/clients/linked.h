// What a daemon changes to link the two calls: included before client.c and caller.c, which stay as
// they are.
//
// See      fusefs/cachefiles/preload/holdfast/cachefiles.h

#ifndef TESTS_CACHEFILES_CLIENTS_LINKED_H_
#define TESTS_CACHEFILES_CLIENTS_LINKED_H_

#include <holdfast/cachefiles.h>
#include <sys/uio.h>

#define read(fd, buffer, size) holdfast_cachefiles_read(fd, buffer, size)
#define ioctl(fd, command, id) holdfast_cachefiles_read_complete(fd, id)

#endif  // TESTS_CACHEFILES_CLIENTS_LINKED_H_
