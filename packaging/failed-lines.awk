# failed-lines.awk: of the log of one slice of test.sh, the lines that say what has failed.
#
#   awk -v max=LINES -f failed-lines.awk LOG
#
# First the names of the failed tests, at most half of LINES.  Then what the tests and the compilers
# report: the assertion with the lines after it, at most 12 lines of each test.  A log without such
# lines gives its last three.  Lines are cut at 200 characters.

function keep(line) {
  if (of_test++ < 12) lines[++count] = substr(line, 1, 200)
}

/ Test +#[0-9]+: .*(\*\*\*|Passed)/ {
  of_test = after = verdicts = 0
  if ($0 ~ /\*\*\*(Failed|Timeout|Exception|Not Run)/) {
    sub(/^.* Test +#[0-9]+: /, "")
    sub(/ \.*\*\*\*/, "  ")
    names[++named] = substr($0, 1, 200)
  }
  next
}

# Python: which test, and the exception with what it says.
/^.* \.\.\. (FAIL|ERROR)$/ { if (verdicts++ < 3) keep($0); next }
/^(FAIL|ERROR): / { keep($0); place = after = ""; next }
/^  File ".*\/tests\// && !/\/tests\/harness\// { place = $0; next }
/^[A-Za-z_][A-Za-z0-9_.]*(Error|Exception|Expired|Timeout)(: |$)/ {
  if (place != "") keep(place)
  keep($0)
  place = ""
  after = 3
  next
}
# GoogleTest.
/: Failure$/ { keep($0); after = 4; next }
# glog's CHECK, the sanitizers, compilers and the tests that read the tree.
/^F[0-9]+ |Check failed: |runtime error: |^SUMMARY: |^(WARNING|==[0-9]+==ERROR): [A-Za-z]+Sanitizer/ {
  keep($0)
  next
}
/: (fatal )?error: |^FAILED: |^CMake Error|^clang-format |terminate called/ { keep($0); after = 1; next }
# Of a test that prints what it finds.
/^[A-Za-z0-9_.\/-]+:[0-9]+: / { keep($0); next }

/^(=====|-----|\[[- ]|Ran [0-9]| *Start +[0-9]|$)/ { after = 0 }
after > 0 { keep($0); after-- }

{ last[NR % 3] = substr($0, 1, 200) }

END {
  if (named + count == 0) {
    for (i = NR - 2; i <= NR; i++) if (i > 0) print last[i % 3]
    exit
  }
  shown = named > max / 2 ? int(max / 2) - 1 : named
  for (i = 1; i <= shown; i++) print names[i]
  if (shown < named) print "and " named - shown " more tests"
  rest = max - shown - (shown < named)
  if (count > rest) rest--
  for (i = 1; i <= count && i <= rest; i++) print "  " lines[i]
  if (rest < count) print "  and " count - rest " more lines"
}
