"""Puts tests/, where the harness package is, on the module path.  Folders of test programs have links to this."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
