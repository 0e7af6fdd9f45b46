// ReportPage: a report as one page of HTML that asks for nothing else.
//
// Model    text, tables and SVG; no script, no other file: a browser shows it from file://.
// Threads  pure function.

#ifndef HOST_REPORT_REPORT_PAGE_H_
#define HOST_REPORT_REPORT_PAGE_H_

#include <string>

#include "host/report/report_data.h"

namespace host {

std::string ReportPage(const ReportData& data);

}  // namespace host

#endif  // HOST_REPORT_REPORT_PAGE_H_
