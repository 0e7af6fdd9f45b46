// Fields of JSON objects, and JSON as one line of text.
//
// Model    what another process wrote is never trusted to have the right shape: a field that is
//          absent or of another type is its fallback.
// Errors   none.
// Threads  thread-safe: no state.

#ifndef CACHECORE_BASE_JSON_FIELDS_H_
#define CACHECORE_BASE_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cachecore {

// A field of a JSON object, or `fallback` when it is absent or of another type: what another
// process wrote is never trusted to have the right shape.
std::string JsonString(const nlohmann::json& object, const char* key, std::string fallback = "");
int64_t JsonInt(const nlohmann::json& object, const char* key, int64_t fallback = 0);
bool JsonBool(const nlohmann::json& object, const char* key, bool fallback = false);
std::vector<std::string> JsonStrings(const nlohmann::json& object, const char* key);
// An empty object when absent.
const nlohmann::json& JsonField(const nlohmann::json& object, const char* key);
// One line of UTF-8 for a file or a socket; bytes that are not UTF-8 are replaced, without
// an exception.
std::string JsonText(const nlohmann::json& value, int indent = -1);
// The same for what this program reads again, such as paths: each byte that is not UTF-8 becomes
// U+0000 and its two hexadecimal digits, which JsonString and JsonStrings turn back.
std::string RecordText(const nlohmann::json& value, int indent = -1);

}  // namespace cachecore

#endif  // CACHECORE_BASE_JSON_FIELDS_H_
