# Writes the protocol file FROM to TO without what only Go's generator understands.
file(READ ${FROM} text)
string(REGEX REPLACE "import weak \"gogoproto/[^\n]*\n" "" text "${text}")
string(REGEX REPLACE "[ \t]*option \\(gogoproto[^\n]*\n" "" text "${text}")
string(REGEX REPLACE " \\[\\(gogoproto[^]]*\\]" "" text "${text}")
file(WRITE ${TO} "${text}")
