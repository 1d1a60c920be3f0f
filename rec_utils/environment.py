"""The environment: the pins of environment.yml, a `.venv` made from them, a check of what is installed.

Standard library only: this runs before any package is there.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from typing import IO

from rec_utils.errors import UserError
from rec_utils.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
DECLARATION = ROOT / "environment.yml"
LOG = ROOT / ".runs" / "setup.log"

#: Free space asked for before a first set-up, without CUDA: the packages and pip's cache, and downloads
#: while they are unpacked. A torch with CUDA takes some 4 GB more, which cannot be known beforehand.
VENV_GB, TEMPORARY_GB = 4, 1

_PIN = re.compile(r'- ([\w.-]+)==([\w.!+-]+)(?:; python_version == "([\d.]+)")?')
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


# What is asked for, and what is there


def read_pins(text: str, python: str = _PYTHON) -> dict[str, str]:
    """The pins of an environment.yml for one Python ("3.12"): package name -> version.

    Reads the form that our own file has, since no YAML parser is installed yet: below `- pip:` one
    `- name==version` a line, with `; python_version == "3.12"` where only that Python needs it.

    Raises:
        UserError: there is no pin, or a line below `- pip:` has another form.
    """
    above, _, below = text.partition("- pip:\n")
    pins: dict[str, str] = {}
    for number, line in enumerate(below.splitlines(), above.count("\n") + 2):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        match = _PIN.fullmatch(entry)
        if not match:
            raise UserError(f"environment.yml, line {number}: {entry!r} is not of the form '- name==version'")
        name, pinned, only = match.groups()
        if only in (None, python):
            pins[name] = pinned
    if not pins:
        raise UserError("environment.yml pins nothing: the list below '- pip:' is missing or empty")
    return pins


def check_environment() -> list[str]:
    """What differs between this Python's packages and environment.yml; empty when nothing does.

    A local build tag ("+cpu") is no difference: which build of torch is right depends on the machine.
    """
    problems = []
    for name, pinned in read_pins(DECLARATION.read_text("utf-8")).items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            problems.append(f"{name} is missing ({pinned} is pinned)")
            continue
        if installed.partition("+")[0] != pinned:
            problems.append(f"{name} is {installed} ({pinned} is pinned)")
    if _project_folder() != ROOT.as_uri():
        problems.append("the project itself is not installed from this folder")
    return problems


def _project_folder() -> str | None:
    """The folder, as a URI, that the project is installed from in this Python; None if it is not."""
    for found in Distribution.discover(name="rec-companion", path=[sysconfig.get_path("purelib")]):
        return json.loads(found.read_text("direct_url.json") or "{}").get("url")
    return None


# Making it


def set_up(venv: Path | None) -> None:
    """Bring the environment in the folder `venv` (None: the one of this Python) to what is pinned.

    When nothing has changed since the last time it returns at once. One set-up runs at a time.

    Raises:
        UserError: no `venv` module, an environment of another Python, a full disk, no registry or
            any other failure of pip, each as one sentence.
    """
    home = venv or Path(sys.prefix)
    python = venv / "bin" / "python" if venv else Path(sys.executable)
    stamp = home / "rec-companion.stamp"
    if python.exists() and _read(stamp) == _fingerprint():
        return
    pins = read_pins(DECLARATION.read_text("utf-8"))
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a+", encoding="utf-8") as log:
        # pip inherits the log and with it the lock: one that outlives a killed set-up is waited for.
        _lock(log)
        if venv:
            _make_venv(venv, python, log, unfinished=_read(stamp) == "unfinished")
        if not _is_complete(python):
            write_atomic(stamp, "unfinished")
            _install(python, pins, home, stamp, log)
    write_atomic(stamp, _fingerprint())
    print(f"The environment is ready: {home}", file=sys.stderr)


def _fingerprint() -> str:
    """Changes with all that calls for another set-up: the pins, the project, the Python, the folder."""
    project = (ROOT / "pyproject.toml").read_bytes()
    parts = [DECLARATION.read_bytes(), project, f"{_PYTHON} {ROOT}".encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _lock(log: IO[str]) -> None:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another set-up is running: waiting for it.", file=sys.stderr)
        fcntl.flock(log, fcntl.LOCK_EX)
    log.truncate(0)


def _make_venv(venv: Path, python: Path, log: IO[str], unfinished: bool) -> None:
    """Make the virtual environment unless a whole one of this Python is there."""
    runs = _answers(python, "True")
    if runs and not _answers(python, f"sys.version_info[:2] == {sys.version_info[:2]}"):
        raise UserError(
            f"{venv} was made by another Python than this {_PYTHON}; go on with PYTHON={python}, "
            "or remove it to start afresh (make clean)"
        )
    if not unfinished and _answers(python, "importlib.util.find_spec('pip')"):
        return
    _check_venv_is_possible(venv)
    print(f"Making {venv} with Python {_PYTHON}", file=sys.stderr)
    # The base Python, since this one may belong to the very environment that is made anew; and only
    # what is known to be a virtual environment is emptied.
    command = [sys._base_executable, "-m", "venv", venv]
    if (venv / "pyvenv.cfg").exists() and (unfinished or not runs):
        command.append("--clear")
    if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
        raise UserError(_diagnosis(venv.parent))


def _answers(python: Path, expression: str) -> bool:
    """Whether a Python exists, runs and finds `expression` true."""
    if not python.exists():
        return False
    command = [python, "-Ic", f"import importlib.util, sys; sys.exit(not ({expression}))"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _check_venv_is_possible(venv: Path) -> None:
    for name in ("venv", "ensurepip"):
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"this Python {_PYTHON} comes without its {name!r} module; install it (Debian, Ubuntu: "
                f"apt install python{_PYTHON}-venv) or choose another Python, for example PYTHON=python3.12"
            )
    venv.parent.mkdir(parents=True, exist_ok=True)
    folders = (("VENV", venv.parent, VENV_GB), ("TMPDIR", Path(tempfile.gettempdir()), TEMPORARY_GB))
    for variable, folder, needed in folders:
        free = shutil.disk_usage(folder).free / 1e9
        if free < needed:
            raise UserError(
                f"{folder} has {free:.1f} GB free and a set-up needs {needed} GB there; free some space "
                f"or choose another folder with {variable}=DIR"
            )


def _is_complete(python: Path) -> bool:
    command = [python, ROOT / "rec_utils" / "bootstrap.py", "--check"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _install(python: Path, pins: dict[str, str], home: Path, stamp: Path, log: IO[str]) -> None:
    packages = [f"{name}=={pinned}" for name, pinned in pins.items()]
    # The project is built by the pinned setuptools that was just installed, not by one fetched anew.
    project = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    for arguments in (packages, project):
        command = [str(python), "-m", "pip", "install", "--no-input", *arguments]
        if _run_with_progress(command, home, len(pins), log):
            if "Installing collected packages" not in LOG.read_text("utf-8", "replace"):
                stamp.unlink()  # pip stopped before it changed anything, so nothing is unfinished
            raise UserError(_diagnosis(home))
    if not _is_complete(python):
        raise UserError(
            f"pip reported no error and yet packages differ; see {python} -m rec_utils.bootstrap --check"
        )


def _run_with_progress(command: list[str], home: Path, total: int, log: IO[str]) -> int:
    """Run pip with its output in the log and a line of progress on stderr; return its exit status."""
    terminal = sys.stderr.isatty()
    pause = 0.3 if terminal else 15
    started = time.monotonic()
    with subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    return process.wait(pause)
                except subprocess.TimeoutExpired:
                    line = f"{_progress(home, total)}, {time.monotonic() - started:.0f} s"
                    print(line, end="\r" if terminal else "\n", file=sys.stderr, flush=True)
        except BaseException:
            process.terminate()
            raise
        finally:
            if terminal:
                print(file=sys.stderr)


def _progress(home: Path, total: int) -> str:
    said = LOG.read_text("utf-8", "replace")
    found = len(re.findall(r"^(?:Collecting|Processing|Requirement already)", said, re.MULTILINE))
    installed = sum(1 for _ in home.glob("lib/python3*/site-packages/*.dist-info"))
    return f"Setting up: {min(found, total)} of {total} packages found, {min(installed, total)} installed"


# Saying what went wrong

#: What pip's log holds -> what to tell the user; the first that is found counts.
_CAUSES = (
    (r"No space left on device|Disk quota exceeded", "the disk is full; free some space"),
    (
        r"externally-managed-environment",
        "this Python belongs to the operating system and takes no packages; leave VENV as it is",
    ),
    (r"Permission denied|Read-only file system", "there is no permission to write to the environment"),
    (
        r"Failed to establish a new connection|Max retries exceeded|Connection (?:refused|reset|broken)|"
        r"name resolution|timed out|ProxyError|SSLError|Network is unreachable",
        "the package registry cannot be reached; check the network and pip's settings (pip config list)",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "no registry that pip is set to use has {what} for Python {python} on this kind of machine; check "
        "pip's settings (pip config list) or choose another Python, for example PYTHON=python3.12,",
    ),
    (r"ERROR: (?P<what>.+)", "pip could not install the packages ({what})"),
)


def _diagnosis(folder: Path) -> str:
    """One sentence on why a command that wrote to `folder` failed, from the log."""
    said = LOG.read_text("utf-8", "replace")
    # A full disk may have cut off the log itself.
    if min(shutil.disk_usage(place).free for place in (folder, tempfile.gettempdir())) < 10**7:
        said = "No space left on device"
    for pattern, cause in _CAUSES:
        if match := re.search(pattern, said):
            sentence = cause.format(python=_PYTHON, **match.groupdict())
            break
    else:
        sentence = "the environment could not be made"
    return f"{sentence} and run the same command again (the full log: {LOG})"


def main() -> int:
    """Command line of `make setup`; see --help."""
    parser = argparse.ArgumentParser(
        prog="python3 rec_utils/bootstrap.py",
        description="Make the environment that environment.yml describes, or check it.",
        epilog="examples: python3.12 rec_utils/bootstrap.py; .venv/bin/python rec_utils/bootstrap.py --check",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--venv",
        type=Path,
        default=ROOT / ".venv",
        metavar="DIR",
        help="folder to make it in (default: .venv)",
    )
    mode.add_argument(
        "--active", action="store_true", help="use the environment of this Python (conda, a container)"
    )
    mode.add_argument(
        "--check", action="store_true", help="change nothing: compare this Python's packages with the pins"
    )
    options = parser.parse_args()
    if not options.check:
        set_up(None if options.active else options.venv.absolute())
        return 0
    problems = check_environment()
    print("\n".join(problems) or "Everything is as environment.yml pins it.")
    return 1 if problems else 0
