"""Errors that a user can act on, and the exit statuses of every command line."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from pathlib import Path

#: What steers a terminal; a message may repeat it from a file or its name.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class UserError(Exception):
    """Something the user can put right.

    The message is one clear sentence that names the file, row, column or parameter at fault.
    Command lines print it without a traceback and exit with status 2.
    """


def describe_os_error(error: OSError, path: Path | None = None) -> str:
    """One sentence for an operating-system error, met while `path` was written: which file, what to do."""
    name = path or error.filename
    where = f" while writing {name}" if name else ""
    elsewhere = "choose another folder (REC_DATA, REC_RUNS, REC_OUTPUT; make setup: VENV)"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"The disk is full{where}; free some space and run the same command again"
        case errno.EFBIG:
            return f"The file would be larger than is allowed here (see ulimit -f){where}"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"No permission for {error.filename or name}: {error.strerror}; grant it or {elsewhere}"
        case errno.ENAMETOOLONG:
            return f"The system takes no path as long as {error.filename or name}; {elsewhere}"
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else where}"


def run_cli(main: Callable[[], int | None]) -> int:
    """Run a command line's `main` and turn expected failures into one sentence.

    Returns the exit status: that of `main` (None counts as 0), 2 for a `UserError` or an
    operating-system error, 130 for ctrl-C.
    """
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {CONTROL.sub('?', str(error))}", file=sys.stderr)
    except BrokenPipeError:
        return 141
    except OSError as error:
        print(f"error: {CONTROL.sub('?', describe_os_error(error))}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; run the same command again to go on.", file=sys.stderr)
        return 130
    return 2
