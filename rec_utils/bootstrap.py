"""Make the environment: `python3 rec_utils/bootstrap.py`, which is what `make setup` runs.

Any Python can read this file, however old, so that an old one gives one clear sentence and
not a syntax error; the work itself is in `rec_utils/environment.py`.
"""
# ruff: noqa: E402, UP031, PTH100, PTH120

import os
import sys

MINIMUM = (3, 11)

if sys.version_info < MINIMUM:
    sys.stderr.write(
        "error: Python %d.%d or newer is needed and this is Python %d.%d; choose another one, for example: "
        "make reproduce PYTHON=python3.12\n" % (MINIMUM + tuple(sys.version_info[:2]))
    )
    sys.exit(2)
if os.name != "posix":
    sys.stderr.write("error: Linux or macOS is needed; on Windows use its Linux subsystem (WSL)\n")
    sys.exit(2)

if __name__ == "__main__":
    # A script's first import folder is its own, from where the project cannot be seen as a package.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from rec_utils.environment import check_environment, main
from rec_utils.errors import run_cli

__all__ = ["check_environment"]

if __name__ == "__main__":
    sys.exit(run_cli(main))
