#include "host/supervisor/supervise_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

namespace host {

void Say(const char* format, ...) {
  char line[640] = "holdfast supervise: ";
  size_t used = strlen(line);
  va_list arguments;
  va_start(arguments, format);
  int more = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
  va_end(arguments);
  used = std::min(used + static_cast<size_t>(std::max(more, 0)), sizeof(line) - 2);
  line[used++] = '\n';
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line, used);
}

}  // namespace host
