"""`taskyard init`: what a new yard has, and that nothing of an old one is lost."""

import socket
import subprocess
from pathlib import Path

import pytest

from taskyard.functions import modules
from taskyard_ctl import envfile, newyard
from taskyard_ctl.cli import main
from taskyard_ctl.yard import YardFolder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def env(folder: Path) -> dict[str, str]:
    return envfile.read(folder / ".env")


def test_a_new_yard(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0
    assert capsys.readouterr().out == ""
    values = env(here)
    assert len(bytes.fromhex(values["TASKYARD_AUTHKEY"])) == 32
    assert values["TASKYARD_ADDRESS"].startswith("127.0.0.1:50")
    assert values["TASKYARD_TASKS_DIR"] == "./tasks"
    assert values["TASKYARD_DATA_DIR"] == str(here / "data")
    assert (here / ".env").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in here.iterdir()) == [".env", "data", "hosts.toml", "tasks"]
    assert list(modules(here / "tasks")) == ["squares"]
    assert (here / "tasks" / "requirements.txt").exists()
    settings = YardFolder(here).settings
    assert settings.tasks_dir == str(here / "tasks")


def test_a_shell_can_source_it(here: Path) -> None:
    main(["init"])
    shell = subprocess.run(
        ["sh", "-c", "set -eu; . ./.env; echo $TASKYARD_AUTHKEY"], capture_output=True, text=True, check=True
    )
    assert shell.stdout.strip() == env(here)["TASKYARD_AUTHKEY"]


def test_two_yards_have_two_keys(here: Path) -> None:
    for name in ("a", "b"):
        (here / name).mkdir()
        assert main(["--yard", name, "init"]) == 0
    assert env(here / "a")["TASKYARD_AUTHKEY"] != env(here / "b")["TASKYARD_AUTHKEY"]


def test_a_second_init_changes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init"])
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["init"]) == 0
    assert "kept .env, which has everything" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_what_is_there_is_kept_and_what_is_missing_added(here: Path) -> None:
    (here / ".env").write_text(
        "DATABASE=mine\nTASKYARD_AUTHKEY=my very own key, long\n".replace("my", "'my", 1)
    )
    (here / ".env").write_text("DATABASE=mine\nTASKYARD_AUTHKEY='my very own key'\n")
    assert main(["init"]) == 0
    lines = (here / ".env").read_text().splitlines()
    assert lines[:2] == ["DATABASE=mine", "TASKYARD_AUTHKEY='my very own key'"]
    assert [line.partition("=")[0] for line in lines[2:]] == [
        "TASKYARD_ADDRESS", "TASKYARD_TASKS_DIR", "TASKYARD_DATA_DIR", "TASKYARD_WORKERS",
        "TASKYARD_WEB", "TASKYARD_WEB_TOKEN",
    ]  # fmt: skip


def test_a_key_in_a_file_is_a_key(here: Path) -> None:
    (here / "key").write_text("0123456789abcdef\n")
    (here / ".env").write_text("TASKYARD_AUTHKEY_FILE=key\n")
    assert main(["init"]) == 0
    assert "TASKYARD_AUTHKEY" not in env(here)
    assert YardFolder(here).settings.authkey == b"0123456789abcdef"


def test_a_folder_of_functions_that_is_there_is_used(here: Path) -> None:
    (here / "examples").mkdir()
    (here / "examples" / "mine.py").write_text("def f(x): return x\n")
    assert main(["init"]) == 0
    assert env(here)["TASKYARD_TASKS_DIR"] == "./examples"
    assert sorted(path.name for path in (here / "examples").iterdir()) == ["mine.py", "requirements.txt"]


def test_folders_can_be_named(here: Path) -> None:
    assert main(["init", "--tasks", "work", "--data", "/usr/share/doc"]) == 0
    assert env(here)["TASKYARD_TASKS_DIR"] == "./work"
    assert env(here)["TASKYARD_DATA_DIR"] == "/usr/share/doc"
    assert (here / "work" / "squares.py").exists()


def test_a_tasks_folder_that_is_a_file_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "work").write_text("")
    assert main(["init", "--tasks", "work"]) == 2
    assert (
        capsys.readouterr().err
        == f"taskyard: tasks folder {here}/work is no folder: name another with --tasks\n"
    )
    assert not (here / ".env").exists()


def test_a_port_in_use_is_left_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(newyard, "PORTS", range(port, port + 20))
        assert main(["init"]) == 0
    assert port < int(env(here)["TASKYARD_ADDRESS"].rpartition(":")[2]) < port + 20


def test_the_environment_comes_before_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["init"])
    monkeypatch.setenv("TASKYARD_WORKERS", "7")
    monkeypatch.setenv("TASKYARD_SLOTS", "")  # empty is not set
    (here / "key").write_text("0123456789abcdef")
    monkeypatch.setenv("TASKYARD_AUTHKEY_FILE", str(here / "key"))
    settings = YardFolder(here).settings
    assert (settings.workers, settings.slots, settings.authkey) == (7, 1, b"0123456789abcdef")


def test_paths_are_those_of_the_yard_in_any_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["init"])
    other = here / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    folder = YardFolder(Path(".."))
    assert folder.settings.journal == str(here / ".taskyard" / "journal.db")
    assert folder.child_environ()["TASKYARD_TASKS_DIR"] == str(here / "tasks")
