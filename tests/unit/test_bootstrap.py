"""The set-up, run for real by this Python and pip on a tiny project whose packages lie in a folder."""

import ast
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rec_utils import environment
from rec_utils.errors import UserError
from rec_utils.settings import ROOT
from tests.fixtures.wheels import make_wheel

BOOTSTRAP = ROOT / "rec_utils" / "bootstrap.py"
PYPROJECT = (
    '[build-system]\nrequires = []\nbuild-backend = "wheels"\nbackend-path = ["."]\n[project]\nname = "x"\n'
)


class Project:
    """A copy of the set-up beside an environment.yml with one package, `tiny`, in versions 1.0 and 2.0."""

    def __init__(self, root: Path) -> None:
        self.root, self.venv = root, root / ".venv"
        self.stamp, self.log = self.venv / "rec-companion.stamp", root / ".runs" / "setup.log"
        (root / "rec_utils").mkdir(parents=True)
        for name in ("__init__", "bootstrap", "environment", "errors", "files"):
            shutil.copy(ROOT / "rec_utils" / f"{name}.py", root / "rec_utils")
        shutil.copy(ROOT / "tests" / "fixtures" / "wheels.py", root)
        (root / "pyproject.toml").write_text(PYPROJECT)
        self.packages = root / "packages"
        self.packages.mkdir()
        for version in ("1.0", "2.0"):
            make_wheel(self.packages, "tiny", version)
        self.pin("1.0")

    def pin(self, version: str) -> None:
        self.pinned = version
        (self.root / "environment.yml").write_text(
            f"dependencies:\n  - pip\n  - pip:\n      - tiny=={version}\n"
        )

    @property
    def other(self) -> str:
        """The version that is not pinned."""
        return "2.0" if self.pinned == "1.0" else "1.0"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.root / "rec_utils" / "bootstrap.py"), *arguments]

    def environ(self, **settings: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        offline = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.packages.as_uri(),
        }
        return clean | offline | settings

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(self.command(), env=self.environ(), stderr=subprocess.PIPE, text=True)

    def set_up(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments),
            env=self.environ(**settings),
            capture_output=True,
            text=True,
            check=False,
        )

    def installed(self) -> str:
        """The version of `tiny` that the environment imports."""
        code = "import tiny; print(tiny.VERSION)"
        return subprocess.check_output([self.venv / "bin" / "python", "-c", code], text=True).strip()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project that is set up; tests may leave another version pinned, but leave it installed."""
    project = Project(tmp_path_factory.mktemp("finished"))
    result = project.set_up()
    assert result.returncode == 0, result.stderr
    return project


def assert_one_sentence(result, *words):
    assert result.returncode == 2
    *progress, sentence = result.stderr.strip().splitlines()
    assert sentence.startswith("error: ")
    assert not any("Traceback" in line or "error" in line for line in progress)
    for word in words:
        assert word in sentence


# Pythons


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 15), (3, 10, 13)])
def test_an_old_python_is_told_what_to_do(version):
    run = f"runpy.run_path({str(BOOTSTRAP)!r}, run_name='__main__')"
    code = f"import runpy, sys; sys.version_info = {version}; {run}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert_one_sentence(
        result, "Python 3.11 or newer", f"this is Python {version[0]}.{version[1]}", "PYTHON=python3.12"
    )


def test_an_old_python_can_read_the_file():
    source = BOOTSTRAP.read_text("ascii")  # Python 2 refuses anything else without a coding line
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.FunctionDef, ast.Match)
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, newer)]
    assert "from __future__" not in source


def test_another_pythons_environment_is_kept(tmp_path):
    project = Project(tmp_path)
    python = project.venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ncase "$2" in *version_info*) exit 1;; esac\n')
    python.chmod(0o755)
    assert_one_sentence(project.set_up(), "made by another Python", f"PYTHON={python}")
    assert python.exists()


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_venv_is_named(module, tmp_path, monkeypatch):
    real = environment.importlib.util.find_spec
    monkeypatch.setattr(
        environment.importlib.util, "find_spec", lambda name: None if name == module else real(name)
    )
    with pytest.raises(UserError, match=f"without its '{module}' module.*apt install python3.*-venv"):
        environment.set_up(tmp_path / "venv")


# Pins


def test_pins_are_read_for_the_python_asked():
    text = "name: x\ndependencies:\n  - pip\n  - pip:\n      # group\n      - a-b==1.0\n\n"
    text += '      - c.d==2.0.post1; python_version == "3.12"\n'
    assert environment.read_pins(text, "3.11") == {"a-b": "1.0"}
    assert environment.read_pins(text, "3.12") == {"a-b": "1.0", "c.d": "2.0.post1"}


@pytest.mark.parametrize(
    "entry", ["- a>=1.0", "- a", "- -e .", "a==1.0", "- a==1.0  # why", "- a == 1.0", "- a==1.*"]
)
def test_another_form_of_pin_is_refused(entry):
    with pytest.raises(UserError, match=r"environment\.yml, line 4: "):
        environment.read_pins(f"dependencies:\n  - pip:\n      - good==1.0\n      {entry}\n")


@pytest.mark.parametrize("text", ["", "dependencies:\n  - python\n", "dependencies:\n  - pip:\n"])
def test_a_file_without_pins_is_refused(text):
    with pytest.raises(UserError, match="pins nothing"):
        environment.read_pins(text)


# Set-up, repeat, change


def test_a_repeat_does_nothing(finished):
    assert finished.installed() == finished.pinned
    before = finished.log.stat().st_mtime_ns
    result = finished.set_up()
    assert (result.returncode, result.stderr) == (0, "")
    assert finished.log.stat().st_mtime_ns == before


def test_a_changed_pin_is_noticed_and_installed(finished):
    check = [finished.venv / "bin" / "python", *finished.command("--check")[1:]]
    old, new = finished.pinned, finished.other
    finished.pin(new)
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, f"tiny is {old} ({new} is pinned)\n")
    assert finished.set_up().returncode == 0
    assert finished.installed() == new
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


def test_the_active_environment_can_be_completed(finished):
    finished.pin(finished.other)
    command = [finished.venv / "bin" / "python", *finished.command("--active")[1:]]
    subprocess.run(command, env=finished.environ(), check=True, capture_output=True)
    assert finished.installed() == finished.pinned


@pytest.mark.fault("no network", "environment", "It says so; an environment that is whole is used as it is.")
def test_an_environment_in_the_right_state_needs_no_registry(finished):
    finished.stamp.unlink()
    assert finished.set_up(PIP_FIND_LINKS="").returncode == 0
    assert finished.log.read_text() == ""
    assert finished.stamp.exists()


def test_a_project_installed_from_elsewhere_is_a_difference(finished, monkeypatch):
    monkeypatch.setattr(environment, "_project_folder", lambda: "file:///elsewhere")
    assert "the project itself is not installed from this folder" in environment.check_environment()


# What can go wrong


@pytest.mark.fault("no network", "environment")
def test_no_network_is_one_sentence_and_harms_nothing(finished):
    pinned = finished.pinned
    finished.pin(finished.other)
    closed = {
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
    }
    result = finished.set_up(**closed)
    finished.pin(pinned)
    assert_one_sentence(result, "registry cannot be reached", str(finished.log))
    assert not finished.stamp.exists()
    assert finished.set_up(PIP_FIND_LINKS="").returncode == 0  # still whole: nothing to fetch


def test_a_mistake_in_environment_yml_harms_nothing(finished):
    pinned = finished.pinned
    finished.pin("*")
    result = finished.set_up()
    finished.pin(pinned)
    assert_one_sentence(result, "environment.yml, line 4")
    assert finished.stamp.read_text() != "unfinished"


def test_a_registry_without_the_package_is_one_sentence(finished):
    pinned = finished.pinned
    finished.pin("3.0")
    result = finished.set_up()
    finished.pin(pinned)
    assert_one_sentence(
        result, "no registry", "tiny==3.0", f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    )
    assert finished.set_up().returncode == 0


@pytest.mark.fault("SIGKILL", "environment", "It waits for a pip that is left, and begins anew.")
@pytest.mark.fault("two processes", "environment", "The second waits for the first.")
def test_a_killed_set_up_is_waited_for_and_redone(finished):
    finished.pin(finished.other)
    litter = finished.venv / "litter"
    litter.touch()
    first = finished.start()
    pip = wait_for_pip(first)
    pip.suspend()
    first.kill()
    first.wait()
    second = finished.start()
    assert "waiting for it" in second.stderr.readline()
    pip.resume()
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert not litter.exists()
    assert finished.installed() == finished.pinned


def wait_for_pip(process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.NoSuchProcess):  # an earlier step's child may end between the two calls
                if "install" in child.cmdline():
                    return child
        time.sleep(0.005)
    raise AssertionError("pip did not start")


@pytest.mark.parametrize("is_one", [True, False])
def test_only_a_virtual_environment_is_ever_emptied(is_one, tmp_path, monkeypatch):
    folder, command = tmp_path / "folder", tmp_path / "python"
    folder.mkdir()
    if is_one:
        (folder / "pyvenv.cfg").touch()
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nexit 1\n')
    command.chmod(0o755)
    monkeypatch.setattr(sys, "_base_executable", command)
    monkeypatch.setattr(environment, "LOG", tmp_path / "setup.log")
    with pytest.raises(UserError, match="could not be made"):
        environment.set_up(folder)
    assert ("--clear" in (tmp_path / "said").read_text()) == is_one


@pytest.mark.fault("full disk", "environment", "It says before it begins how much room it needs.")
def test_a_full_disk_is_found_beforehand(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=900_000_000)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"has 0\.9 GB free and a set-up needs 4 GB there.*VENV=DIR"):
        environment.set_up(tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


@pytest.mark.fault("full disk", "environment", "It says that the disk filled up, and begins anew.")
@pytest.mark.fault("read-only folder", "environment", "It says what it may not write; then it goes on.")
@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        ("error: externally-managed-environment", "belongs to the operating system"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'",
            "no permission",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: Failed to "
            "establish a new connection: [Errno -3] Temporary failure in name resolution'\n"
            "ERROR: No matching distribution found for torch==2",
            "registry cannot be reached",
        ),
        (
            "ERROR: No matching distribution found for torch==2",
            "no registry that pip is set to use has torch==2",
        ),
        ("ERROR: Failed building wheel for scipy", "Failed building wheel for scipy"),
        ("", "could not be made"),
    ],
)
def test_each_failure_of_pip_has_its_sentence(log, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "LOG", tmp_path / "setup.log")
    environment.LOG.write_text(log)
    assert sentence in environment._diagnosis(tmp_path)


@pytest.mark.fault("full disk", "environment")
def test_a_log_cut_off_by_the_full_disk_does_not_mislead(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "LOG", tmp_path / "setup.log")
    environment.LOG.write_text("ERROR: No matching")
    usage = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: usage)
    assert "disk is full" in environment._diagnosis(tmp_path)


@pytest.mark.fault(
    "damaged file", "environment", "It looks at the packages themselves, and installs what differs."
)
def test_a_damaged_stamp_is_looked_behind(finished):
    finished.stamp.write_bytes(b"\xff half")
    assert finished.set_up(PIP_FIND_LINKS="").returncode == 0
    assert b"half" not in finished.stamp.read_bytes() and finished.installed() == finished.pinned


@pytest.mark.fault("non-ASCII path", "environment", "It makes the environment as elsewhere.")
@pytest.mark.fault("very long path", "environment", "It makes the environment as elsewhere.")
def test_the_project_may_lie_in_any_folder(tmp_path):
    project = Project(tmp_path / "Отчёт 数据 é ’quote’ [1]" / "/".join(["x" * 60] * 4))
    result = project.set_up()
    assert result.returncode == 0, result.stderr
    assert project.installed() == "1.0"
    assert (project.set_up().stderr, project.stamp.exists()) == ("", True)


@pytest.mark.fault("read-only folder", "environment")
def test_a_read_only_folder_is_one_sentence(tmp_path):
    from tests.unit.fault_stages import Disk  # loads much that no other test here needs

    try:
        disk = Disk(tmp_path / "disk")
    except OSError as error:
        pytest.skip(f"no file system in memory can be mounted here: {error}")
    try:
        project = Project(disk.folder / "project")
        disk.remount("ro")
        assert_one_sentence(project.set_up(), "No permission for ", ".runs", "make setup: VENV")
    finally:
        disk.unmount()
