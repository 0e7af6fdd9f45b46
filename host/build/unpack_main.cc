// holdfast-unpack TREE [ARCHIVE DIFF_ID plain|stargz]...: applies layers, from the lowest up, to a
// directory that it makes.  holdfast-unpack --transport ARCHIVE: prints what it is an archive of.
// `holdfast image build` runs it contained; a program of its own, since
// what libarchive brings along would be in the memory that `holdfast supervise` locks.
#include <cstdio>
#include <memory>
#include <string>

#include "host/build/layer_archive.h"
#include "host/build/layer_tree.h"

namespace {

constexpr int kArgumentsOfLayer = 3;

cachecore::Status Unpack(int argc, char** argv) {
  ASSIGN_OR_RETURN(const std::unique_ptr<host::LayerTree> tree, host::LayerTree::Make(argv[1]));
  int number = 0;
  for (int i = 2; i + kArgumentsOfLayer <= argc; i += kArgumentsOfLayer) {
    const host::LayerArchive layer = {argv[i], argv[i + 1], std::string(argv[i + 2]) == "stargz"};
    RETURN_IF_ERROR(ApplyLayer(layer, tree.get()).WithContext("layer " + std::to_string(++number)));
  }
  return {};
}

cachecore::Status PrintTransport(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string transport, host::TransportOfArchive(path));
  std::printf("%s", transport.c_str());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "holdfast-unpack is a part of holdfast image build\n");
    return 2;
  }
  const bool asks = argc == 3 && std::string(argv[1]) == "--transport";
  const cachecore::Status done = asks ? PrintTransport(argv[2]) : Unpack(argc, argv);
  if (done.ok()) return 0;
  std::fprintf(stderr, "%s\n", done.message().c_str());
  return 1;
}
