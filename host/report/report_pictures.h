// The pictures of a report: the map of the image and the timeline, as SVG.
//
// Threads  pure functions.

#ifndef HOST_REPORT_REPORT_PICTURES_H_
#define HOST_REPORT_REPORT_PICTURES_H_

#include <string>

#include "host/report/report_figures.h"

namespace host {

// Cells in rows, from the first byte on; a cell's title names its bytes and some of its files.
std::string MapPicture(const ReportData& data, const Figures& figures, const FileIndex& files);
// Above, MB a second; below, the longest wait.
std::string TimePicture(const ReportData& data, const Figures& figures);

}  // namespace host

#endif  // HOST_REPORT_REPORT_PICTURES_H_
