"""`python -m autoquant.amct SCRIPT ARGS` runs a script made for amct_tensorflow as Python itself would."""

import sys

from autoquant.amct.script import main

main(sys.argv[1:])
