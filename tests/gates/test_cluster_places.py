"""Places that the batch runner itself opens: dask workers on this machine and, by a stand-in, SLURM jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from rec_utils import batch
from rec_utils.errors import UserError
from tests.gates.processes import is_alive, wait_until

BATCH = ("-m", "rec_utils.batch", "run", "--notebooks")

#: Enough of SLURM to run a job at once on this machine, and to cancel it.
SBATCH = """\
#!/bin/sh
if [ "$1" = --test-only ]; then
    grep -q "SBATCH -p lnog" || exit 0
    echo "sbatch: error: invalid partition specified: lnog" >&2; exit 1
fi
cp "$1" "{folder}/job.sh"
setsid sh "{folder}/job.sh" >"{folder}/job.log" 2>&1 &
echo $! >>"{folder}/jobs"
echo "Submitted batch job $!"
"""
SCANCEL = """\
#!/bin/sh
for job in "$@"; do kill -TERM -- "-$job"; done
"""


def test_local_workers_share_the_cores_and_gpus_and_end_with_the_batch(workspace, monkeypatch):
    workspace.write(
        "tiny",
        "import psutil\nnote([sorted(os.sched_getaffinity(0)), psutil.Process().parents()[1].pid])\n"
        "note(os.environ['CUDA_VISIBLE_DEVICES'])",
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    where = ("--scheduler", "local", "--workers", "2", "--gpu")
    process = workspace.command(*BATCH, str(workspace.notebooks), "-p", "SEED=0,1", *where)
    assert process.returncode == 0, process.stderr
    assert len(re.findall(r"tiny laptop\S* +finished", process.stdout)) == 2
    (cores, worker), (others, other) = (json.loads(line) for line in workspace.journal if "[" in line)
    assert {"5", "7"} < set(workspace.journal)
    assert worker != other and not is_alive(worker) and not is_alive(other)
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(cores) & set(others)


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Path:
    """A stand-in for SLURM's commands; what it was told lies in this folder."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.fault("SIGKILL", "grid", "A lost job of SLURM is replaced.")
def test_a_slurm_job_that_is_lost_is_replaced_and_all_end_with_the_batch(workspace, queue):
    workspace.write(
        "tiny",
        "import psutil, signal\nnote(SEED)\njob = os.getpgid(psutil.Process().parents()[1].pid)",
        "if not os.path.exists(f'{root}/lost'):\n    os.mkdir(f'{root}/lost')\n"
        "    os.killpg(job, signal.SIGKILL)\n    signal.pause()",
    )
    told = ("queue=long", "memory=2GB", "cores=3", "walltime=01:00:00", "directive=--nice", "interface=lo")
    options = [word for option in told for word in ("--slurm", option)]
    result = workspace.command(*BATCH, str(workspace.notebooks), "--scheduler", "slurm", "--gpu", *options)
    assert result.returncode == 0, result.stderr
    assert workspace.journal == ["0", "0"]
    script = (queue / "job.sh").read_text()
    for line in ("-p long", "--cpus-per-task=3", "--mem=2G", "-t 01:00:00", "--nice", "--gpus=1"):
        assert f"#SBATCH {line}\n" in script
    assert "--nthreads 1 " in script and "--resources GPU=1" in script
    jobs = [int(line) for line in (queue / "jobs").read_text().splitlines()]
    assert len(jobs) == 2
    wait_until(lambda: not any(map(is_alive, jobs)))


def test_ctrl_c_cancels_the_slurm_jobs(workspace, queue):
    workspace.write("endless", "note(os.getpid())", "import time\nwhile True: time.sleep(1)")
    options = ("--scheduler", "slurm", "--slurm", "memory=2GB", "--slurm", "interface=lo")
    process = workspace.start(*BATCH, str(workspace.notebooks), *options)
    wait_until(lambda: workspace.journal)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130 and "interrupted" in err
    wait_until(lambda: not is_alive(int(workspace.journal[0])))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--gpu"], "--gpu needs --scheduler"),
        (["--slurm", "queue=x"], "--slurm needs --scheduler slurm"),
        (["--scheduler", "local", "--slurm", "queue=x"], "--slurm needs --scheduler slurm"),
        (["--scheduler", "local", "--gpu"], "no NVIDIA GPU"),
        (["--scheduler", "slurm", "--slurm", "que=x"], "'que' is not one of .*; did you mean 'queue'"),
        (["--scheduler", "slurm", "--slurm", "cores=many"], "cores=many is not a number"),
        (["--scheduler", "slurm", "--slurm", "memory=1GB"], "no sbatch here"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(workspace, monkeypatch, options, sentence):
    workspace.write("tiny", "note('a kernel has started')")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match=sentence):
        batch.main(["run", "--notebooks", str(workspace.notebooks), *options])
    assert not workspace.journal


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "--slurm: .*memory"),
        (["memory=1GB", "queue=lnog"], "SLURM refuses the job: .* invalid partition specified: lnog"),
    ],
)
def test_a_job_that_slurm_would_not_take_is_refused(workspace, queue, options, sentence):
    workspace.write("tiny")
    command = ["run", "--notebooks", str(workspace.notebooks), "--scheduler", "slurm"]
    with pytest.raises(UserError, match=sentence):
        batch.main(command + [word for option in options for word in ("--slurm", option)])
    assert not (queue / "jobs").exists()


@pytest.mark.parametrize("address", ["LOCAL", "tcp://host", "host:8786", "http://host:8786"])
def test_another_place_is_wrong_usage(workspace, address, capsys):
    with pytest.raises(SystemExit):
        batch.main(["run", "--scheduler", address])
    assert f"{address!r} is not local, slurm or tcp://HOST:PORT" in capsys.readouterr().err


@pytest.mark.fault("no network", "grid", "It names the scheduler that does not answer; nothing has begun.")
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_scheduler_that_does_not_answer_is_named(workspace, host):
    workspace.write("tiny", "note('a kernel has started')")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://{host}:{taken.getsockname()[1]}"
        result = workspace.command(*BATCH, str(workspace.notebooks), "--scheduler", address)
    assert result.returncode == 2
    assert f"error: no dask scheduler answers at {address}: " in result.stderr
    assert "Traceback" not in result.stderr and not workspace.journal
