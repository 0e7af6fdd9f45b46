// Injection: puts a message, and the descriptor that it names, into a thread that reads the device.
//
// Model    the thread waits in its read.  It is traced and interrupted: the device ends such a read
//          with 0 bytes, and the thread stops before its next instruction.  There the message is
//          written into its buffer and a few instructions into the room behind its vdso; then its
//          registers are set to them, which is the one step that commits, and it is let run.
// Errors   a report for each job, with the errno of the reader's read.
// Threads  one: that which traces.
// Crash    before the step that commits, the reader's read has given 0 bytes, which means "no
//          message now".  After it, the thread needs no tracer.  A tracer's end lets it run.
// See      docs/design.md "The cachefiles device".

#ifndef FUSEFS_INJECT_INJECTION_H_
#define FUSEFS_INJECT_INJECTION_H_

#include <functional>

#include "fusefs/inject/injection_job.h"

namespace fusefs {

// Waits until a traced thread may have changed its state.
using AwaitChange = std::function<void()>;

// `tell` gets the report before the thread runs on, so that it comes before all that the thread
// asks the device for afterwards.
void Inject(const InjectionJob& job, const AwaitChange& await_change,
            const std::function<void(const InjectionReport&)>& tell);

}  // namespace fusefs

#endif  // FUSEFS_INJECT_INJECTION_H_
