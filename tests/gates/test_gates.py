"""Gates that must bite: each breaks one thing for real and asserts that the tools notice."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from rec_utils.settings import ROOT
from tests.gates.processes import BATCH, is_alive, wait_until

SOCKETS = "print(__import__('ipykernel').get_connection_info(unpack=True)['ip'])"


def run_folder(workspace, name: str) -> Path:
    (folder,) = workspace.runs.glob(f"*/{name}")
    return folder


# nbval -------------------------------------------------------------------------------------------------


def nbval(workspace, *names: str):
    return workspace.command(
        str(ROOT / "tests/run_nbval.py"), "--notebooks", str(workspace.notebooks), *names
    )


def test_nbval_passes_a_notebook_that_shows_what_it_computes(workspace):
    workspace.write("good", "print(0.1 + 0.2)", stored="0.30000000000000004\n")
    result = nbval(workspace, "good")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "good: 1 cells compared\n" in result.stdout
    assert not workspace.output.exists(), "a check must not write records among the results"


def test_nbval_fails_a_changed_number(workspace):
    workspace.write("changed", "print(0.1 + 0.2)", stored="0.3000000000000001\n")
    result = nbval(workspace, "changed")
    assert result.returncode == 1
    assert "Cell outputs differ" in result.stdout
    assert "1 failed, 3 passed" in result.stdout, "the other cells are as they should be"


def test_nbval_fails_stripped_outputs(workspace):
    workspace.write("stripped", "print(0.1 + 0.2)")
    result = nbval(workspace, "stripped")
    assert "4 passed" in result.stdout, "nbval by itself is content"
    assert result.returncode == 1
    assert "stripped: 0 cells compared: FAILED" in result.stdout


# batch runner ------------------------------------------------------------------------------------------


def batch(workspace, *arguments: str):
    return workspace.command(*BATCH, arguments[0], "--notebooks", str(workspace.notebooks), *arguments[1:])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("SEDE=1", "'SEDE' is not one of PROFILE, SEED, LR; did you mean 'SEED'?"),
        ("SEED=abc", "parameter SEED: 'abc' is not of type int"),
    ],
)
def test_a_misspelt_parameter_or_value_stops_before_a_kernel_starts(workspace, wrong, sentence):
    workspace.write("tiny", "note('a kernel has started')")
    result = batch(workspace, "run", "-p", wrong)
    assert result.returncode == 2
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert not workspace.journal and not workspace.runs.exists()


def test_failures_are_told_and_parallel_runs_do_not_clash(workspace):
    workspace.write("broken", SOCKETS, "x = 1\ny = x / 0\nprint(y)")
    workspace.write("silent", SOCKETS, record=False)
    workspace.write("sound", SOCKETS)
    result = batch(workspace, "run", "--workers", "3", "-p", "SEED=1", "--report")
    assert result.returncode == 1

    states = {
        file.parent.name: json.loads(file.read_text()) for file in workspace.runs.glob("*/*/state.json")
    }
    assert {name: state["status"] for name, state in states.items()} == {
        "broken-laptop-SEED=1": "failed",
        "silent-laptop-SEED=1": "failed",
        "sound-laptop-SEED=1": "finished",
    }
    # a number as in the margin of the executed copy, which has one cell more: that with the parameters
    problem = "cell 5 (broken): ZeroDivisionError: division by zero at 'y = x / 0'"
    assert re.search(rf"broken laptop-SEED=1 +failed .* {re.escape(problem)}", result.stdout)
    problem = "it wrote no record records/silent/laptop-SEED=1.json"
    assert re.search(rf"silent laptop-SEED=1 +failed .* {re.escape(problem)}", result.stdout)
    # verdicts only of what ran well, and only its record is published
    assert re.search(r"It gains. +matched +\+1.23 \[.*\] % +0 % +sound laptop-SEED=1\n", result.stdout)
    assert [path.name for path in workspace.output.glob("records/*/*")] == ["laptop-SEED=1.json"]
    # a socket folder for each kernel, none left behind
    logs = [path.read_text() for path in workspace.runs.glob("*/*/log.txt")]
    folders = {re.search(r"^(/.*/)k$", log, re.MULTILINE)[1] for log in logs}
    assert len(folders) == len(logs) == 3
    assert not any(Path(folder).exists() for folder in folders)


def test_a_time_out_leaves_no_process(workspace):
    workspace.write(
        "endless",
        "import subprocess\n"
        "note(os.getpid())\n"
        "note(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)",
        "while True:\n    pass",
    )
    for seconds in (6, 20, 60):  # a busy machine may not get as far as the cell in a short time
        result = batch(workspace, "run", "--timeout", str(seconds))
        if len(workspace.journal) >= 2:
            break
    assert result.returncode == 1
    assert f"cell 4 (endless): stopped at the time-out of {seconds} s" in result.stdout
    wait_until(lambda: not any(is_alive(int(pid)) for pid in workspace.journal), 10)
    executed = json.loads((run_folder(workspace, "endless-laptop") / "notebook.ipynb").read_text())
    assert executed["cells"][3]["execution_count"] == 3, "what was executed is kept"


@pytest.fixture
def two_notebooks(workspace):
    """One that finishes at once, and one that waits for a file `go`; both note their start and process."""
    start = "note(f'{name} {{os.getpid()}}')"
    workspace.write("a_quick", start.format(name="quick"))
    workspace.write(
        "b_slow",
        f"folder = os.environ['REC_OUTPUT'] + '/b_slow'\nos.makedirs(folder)\n"
        f"open(folder + '/half.csv', 'w').write('half a fi')\n{start.format(name='slow')}",
        "import time\nwhile not os.path.exists(f'{root}/go'): time.sleep(0.05)",
        "open(folder + '/half.csv', 'w').write('a file');",
    )
    return workspace


def start_until_second(workspace):
    """Start the batch; return it and the second kernel's process id once that is at work."""
    process = workspace.start(*BATCH, "run", "--notebooks", str(workspace.notebooks))
    wait_until(lambda: len(workspace.journal) == 2)
    return process, int(workspace.journal[1].split()[1])


@pytest.mark.fault("SIGKILL", "batch")
def test_after_sigkill_only_the_unfinished_is_repeated(two_notebooks):
    workspace = two_notebooks
    process, kernel = start_until_second(workspace)
    status = workspace.command(*BATCH, "status")
    assert re.search(r"a_quick laptop +finished", status.stdout)
    assert re.search(r"b_slow laptop +running +cell 4 of 6: b_slow", status.stdout)
    process.kill()
    process.communicate()
    wait_until(lambda: not is_alive(kernel), 10)
    assert re.search(r"b_slow laptop +waiting", workspace.command(*BATCH, "status").stdout)
    assert not (workspace.output / "b_slow").exists(), "half a file is no result"

    (workspace.root / "go").touch()
    result = workspace.command(*BATCH, "resume")
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in workspace.journal] == ["quick", "slow", "slow"]
    assert (workspace.output / "b_slow/half.csv").read_text() == "a file"
    assert "cell_seconds" in (workspace.output / "records/b_slow/laptop.json").read_text()
    assert not list(workspace.runs.glob("*/partial"))


def test_ctrl_c_ends_the_kernels_and_keeps_what_is_finished(two_notebooks):
    workspace = two_notebooks
    process, kernel = start_until_second(workspace)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err
    assert not is_alive(kernel)
    assert (run_folder(workspace, "a_quick-laptop") / "record.json").exists()
    assert not list(workspace.runs.glob("*/partial")) and not list(workspace.runs.glob("*/b_slow*"))
