"""One rank of a job, under mpirun: ``mpirun -n 8 python -m mpips JOB``."""

import sys

from mpips.start import main

if __name__ == "__main__":
    main(sys.argv[1:])
