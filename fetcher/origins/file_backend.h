// FileBackend: objects that are files of a directory; FileEngine: copies them piece by piece.
//
// Model    each RunOnce does one bounded piece of one transfer, in turn, so that a local copy never
//          keeps the event loop from the device and the network.  The pin is inode, mtime and size.
//          No symbolic link is followed.  A source that registers its files has those alone, each
//          the very file that it was when it was mounted.
// Errors   ENOENT, EACCES and other errnos of open refuse; read errors are worth a retry.
// Threads  the event loop's.  A piece blocks for as long as its disk takes.
// Cost     copy_file_range where both files allow it, else pread and pwrite; kPieceSize at a time.

#ifndef FETCHER_ORIGINS_FILE_BACKEND_H_
#define FETCHER_ORIGINS_FILE_BACKEND_H_

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "fetcher/source/local_files.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

class FileTransfer;

class FileEngine {
 public:
  static constexpr uint64_t kPieceSize = 1 << 20;

  FileEngine();
  ~FileEngine();
  FileEngine(const FileEngine&) = delete;
  FileEngine& operator=(const FileEngine&) = delete;

  bool idle() const { return transfers_.empty(); }
  // Does one piece of one transfer.
  void RunOnce();

 private:
  friend class FileTransfer;
  std::list<FileTransfer*> transfers_;  // In turn.
  std::unique_ptr<char[]> buffer_;      // kPieceSize, for files that copy_file_range refuses.
};

class FileBackend : public Backend {
 public:
  // `url` is file:///DIR/.  `files` are those of the source, `volume`'s.  `engine` and `opener`
  // outlive this.
  FileBackend(std::string url, std::string volume, std::vector<LocalFile> files,
              const LocalFiles* opener, FileEngine* engine)
      : url_(std::move(url)),
        volume_(std::move(volume)),
        files_(std::move(files)),
        opener_(opener),
        engine_(engine) {}

  std::unique_ptr<Transfer> Probe(const std::string& key, bool afresh, ProbeDone done) override;
  std::unique_ptr<Transfer> Fetch(FetchRequest request, FetchSink* sink) override;
  std::string Describe(const std::string& key) const override { return url_ + key; }

  // For its transfers, which it outlives.
  cachecore::Result<cachecore::UniqueFd> Open(const std::string& key) const;

 private:
  const std::string url_;
  const std::string volume_;
  const std::vector<LocalFile> files_;  // Empty: any file below url_.
  const LocalFiles* const opener_;
  FileEngine* const engine_;
};

}  // namespace fetcher

#endif  // FETCHER_ORIGINS_FILE_BACKEND_H_
