"""The command itself: how it starts, what it says when something is wrong, and with which exit code."""

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from taskyard import __version__
from taskyard.errors import SettingsError
from taskyard.settings import Settings
from taskyard_ctl import cli
from taskyard_ctl.cli import VERBS, main

KEY = "0123456789abcdef"
COMMAND = [sys.executable, "-m", "taskyard_ctl"]
HEAVY = {"docker", "rich", "msgspec", "asyncio", "requests", "taskyard.client", "sqlite3"}
CPU_SECONDS = 0.2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A yard's folder in which nothing runs."""
    (tmp_path / ".env").write_text(f"TASKYARD_ADDRESS=127.0.0.1:{free_port()}\nTASKYARD_AUTHKEY={KEY}\n")
    return tmp_path


def loaded_by(*arguments: str) -> set[str]:
    code = (
        "import sys; from taskyard_ctl.cli import main; main(sys.argv[1:]);"
        " print('\\n' + '\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["up", "--help"], ["submit", "--help"], ["nope"]]
)
def test_nothing_heavy_is_imported_to_start(arguments: list[str]) -> None:
    assert loaded_by(*arguments) & HEAVY == set()


def test_a_command_needs_neither_docker_nor_rich_to_ask_the_master(yard: Path) -> None:
    assert loaded_by("status", "--json", "--yard", str(yard)) & {"docker", "rich", "asyncio"} == set()


def test_in_a_folder_of_a_yard_it_says_where_that_is(
    yard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instead of asking for a yard within the yard."""
    (yard / ".taskyard").mkdir()
    (yard / ".taskyard" / "yard.json").write_text('{"engine": "local"}')
    (yard / "data").mkdir()
    monkeypatch.chdir(yard / "data")
    assert main(["status"]) == 2
    said = capsys.readouterr().err
    assert said == f"taskyard: no yard is in {yard}/data, but one in {yard}: go there, or --yard {yard}\n"


def test_a_program_beside_a_key_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TASKYARD_AUTHKEY", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="run 'taskyard init' first"):
        Settings.from_env()
    (tmp_path / ".env").touch()
    with pytest.raises(SettingsError, match=r"is not set; 'set -a; \. \./\.env; set \+a' in the shell"):
        Settings.from_env()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["submit", "--help"]])
def test_a_command_starts_quickly(yard: Path, arguments: list[str]) -> None:
    """Measured in processor time, which a busy machine does not change much; the best of five."""

    def cost() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, *arguments], cwd=yard, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cost() for _ in range(5)) < CPU_SECONDS


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"taskyard {__version__}\n"


def test_help_lists_every_verb_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ") and line.split()}
    for verb in VERBS:
        assert len(lines[verb].split()) > 2, lines[verb]
        assert not lines[verb].endswith("..."), "too long for its line"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f" taskyard {verb}" in capsys.readouterr().out.split("Example", 1)[1]


def test_nothing_said_is_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Start and stop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sttus"], "taskyard: there is no command 'sttus'; did you mean 'status'?\n"),
        (["xyzzy"], "taskyard: there is no command 'xyzzy'; 'taskyard --help' lists them all\n"),
        (["scale", "many"], "taskyard: scale: invalid value for 'N': 'many' is not a valid integer range;"),
        (["scale"], "taskyard: scale: missing argument 'N'; see 'taskyard scale --help'\n"),
        (["up", "--wrkers", "3"], "taskyard: up: no such option '--wrkers'. Did you mean '--workers'?;"),
        (["up", "--workers", "-1"], "taskyard: up: invalid value for '--workers'"),
        (
            ["--yard", "/no/such/folder", "status"],
            "taskyard: yard /no/such/folder: there is no such folder\n",
        ),
        (
            ["status", "--yard", "/no/such/folder"],
            "taskyard: yard /no/such/folder: there is no such folder\n",
        ),
        (["submit", "a:b"], "taskyard: give the inputs by one of --range, --input, --glob and --arg\n"),
        (["submit", "a:b", "--range", "0:1", "--arg", "1"], "taskyard: give the inputs by one of"),
        (["submit", "a:b", "--range", "1:2", "--jsonl"], "taskyard: --jsonl goes with --input\n"),
        (["submit", "a:b", "--range", "1-2"], "taskyard: --range 1-2: write A:B, two whole numbers"),
        (["submit", "a:b", "--input", "/no/file"], "taskyard: --input /no/file: No such file or directory\n"),
        (["submit", "a:b", "--range", "0:1", "--ordered"], "taskyard: --ordered goes with --wait;"),
        (["drain"], "taskyard: name one worker, or a host with --host; 'taskyard status' lists them\n"),
        (["logs", "--grep", "("], "taskyard: --grep (: is no regular expression"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, yard: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(yard)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith(words)
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_every_fault_of_the_settings_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("TASKYARD_ADRESS=1\nTASKYARD_SLOTS=none\n")
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "taskyard: TASKYARD_ADRESS: there is no such setting; did you mean TASKYARD_ADDRESS?",
        *[line for line in lines if line.startswith("taskyard: TASKYARD_SLOTS: ") and "'none'" in line],
        "taskyard: TASKYARD_AUTHKEY: is not set; run 'taskyard init' first, or set it or its _FILE",
    ]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status"], "no master answers at 127.0.0.1:"),
        (["submit", "a:b", "--range", "0:1"], "no master answers at 127.0.0.1:"),
        (["results", "x"], "no master answers at 127.0.0.1:"),
        (["cancel", "x"], "no master answers at 127.0.0.1:"),
    ],
)  # fmt: skip
def test_no_master_is_one_line_and_exit_code_3(
    arguments: list[str], words: str, yard: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(yard)
    monkeypatch.setattr("taskyard_ctl.yard.PATIENCE_S", 0.1)
    assert main(arguments) == 3
    output = capsys.readouterr()
    assert words in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["scale", "2"], ["logs"]])
def test_no_yard_is_one_line_and_exit_code_3(
    arguments: list[str], yard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(yard)
    assert main(arguments) == 3
    assert capsys.readouterr().err == f"taskyard: no yard runs in {yard}: start one with 'taskyard up'\n"


def test_down_without_a_yard_is_done(
    yard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(yard)
    assert main(["down"]) == 0
    assert capsys.readouterr().err == "no yard runs here\n"


def test_an_unexpected_error_is_one_line_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(ctx: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli, "yard_of", fail)
    monkeypatch.setattr("taskyard_ctl.commands.status.yard_of", fail)
    assert main(["status"]) == 70
    hint = "--verbose shows where, please report it"
    assert capsys.readouterr().err == f"taskyard: internal error: RuntimeError: two lines; {hint}\n"
    assert main(["status", "--verbose"]) == 70
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("taskyard: internal error: RuntimeError: two lines\n")


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(ctx: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("taskyard_ctl.commands.status.yard_of", interrupted)
    assert main(["status"]) == 130
    assert capsys.readouterr().err == "taskyard: interrupted\n"


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text("\n".join(f"def function_{i}(): pass" for i in range(5000)))
    read, write = os.pipe()
    os.close(read)
    arguments = ["check", "--tasks", str(tmp_path), "--json"]
    done = subprocess.run([*COMMAND, *arguments], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_check_lists_what_can_run_and_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.py").write_text("def work(x): return x\nwork.timeout = 5\n")
    assert main(["check", "--tasks", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["function", "timeout", "good:work", "5", "s"]
    (tmp_path / "bad.py").write_text("import not_there\n")
    assert main(["check", "--tasks", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert "bad: ModuleNotFoundError: No module named 'not_there'" in output.out
    assert output.err == f"taskyard: 1 of the modules in {tmp_path} cannot be imported\n"
    assert main(["check", "--tasks", str(tmp_path / "nowhere")]) == 2
    assert "there is no tasks folder" in capsys.readouterr().err
