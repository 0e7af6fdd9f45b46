// What went wrong with a data file, which the daemon has given us as a descriptor.

#ifndef FETCHER_TRANSFER_DATA_FILE_H_
#define FETCHER_TRANSFER_DATA_FILE_H_

#include "fetcher/transfer/backend.h"

namespace fetcher {

// A write to `fd` has failed with `error`: of kind kLocal, with the file's path and the errno.
Failure DataFileFailure(int fd, int error);

// Whether `error` is that of a disk that is full, or was made read-only: it may take writes again.
// One that is broken says EIO.
bool TakesNoWrites(int error);

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_DATA_FILE_H_
