"""`mpips` whose ranks only pretend to train: `python pretend_run.py run JOB`."""

import sys
from pathlib import Path

import mpips.cli.run
from mpips.cli import main

mpips.cli.run.PROGRAM = (sys.executable, str(Path(__file__).with_name("pretend_rank.py")))
main()
