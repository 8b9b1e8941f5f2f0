"""What the images are made of: locks in which everything has a hash, and nothing but the locks."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_everything_in_a_lock_has_one_version_and_hashes(lock: Path) -> None:
    text = re.sub(r"\\\n", " ", lock.read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,._-]+\])?==[^ ]+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
        assert "://" not in line and "@" not in line.partition(";")[0], line


def test_what_a_role_has_is_what_the_tests_ran_with() -> None:
    """One version everywhere: the locks of the roles agree with that of development."""

    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+==[^ ;]+)", (ROOT / "locks" / name).read_text(), re.MULTILINE))

    assert pins("master.txt") <= pins("dev.txt")
    assert pins("worker.txt") <= pins("dev.txt")


@pytest.mark.parametrize("role", ["master", "worker"])
def test_an_image_installs_from_its_lock_with_hashes(role: str) -> None:
    text = re.sub(r"\\\n", " ", (ROOT / role / "Dockerfile").read_text())
    installs = re.findall(r"pip install[^&;\n]*", text)
    assert f"--require-hashes -r /build/{role}.txt" in installs[0]
    # The one other is for what the tasks folder asks for, which may not change what is locked.
    others = [line for line in installs[1:] if "requirements.txt" not in line or "--constraint" not in line]
    assert others == []
    assert len(installs) == {"master": 1, "worker": 2}[role]


def test_the_environment_of_the_tests_does_too() -> None:
    assert re.search(r"--require-hashes -r locks/dev\.txt", (ROOT / "Makefile").read_text())
