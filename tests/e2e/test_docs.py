"""The pages a user reads first are run from top to bottom, in one yard, and links lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import free_port
from test_readme import Shell

DOCS = Path(__file__).resolve().parents[2] / "docs"
# In the order of reading.
PAGES = ("start.md", "own-function.md", "many-inputs.md", "failures.md", "coming-from.md")
WORDS = {
    "start.md": '"value":81',
    "own-function.md": '"value":3',
    "many-inputs.md": "squares:square(4)",
    "failures.md": '"index":8,',
    "coming-from.md": "joblib: ['800/a.png', '800/b.png']",
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("docs"))
    shell.run("taskyard init")
    shell.run(f"sed -i 's/^TASKYARD_ADDRESS=.*/TASKYARD_ADDRESS=127.0.0.1:{free_port()}/' .env")
    shell.run("taskyard up --local --workers 1")
    yield shell
    shell.run("taskyard down")


def blocks(page: str) -> list[tuple[str, str]]:
    text = (DOCS / page).read_text()
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_works(page: str, shell: Shell) -> None:
    printed = ""
    for language, code in blocks(page):
        if language == "python":
            (shell.folder / "block.py").write_text(code)
            code = f"set -a; . ./.env; set +a; {sys.executable} block.py"
        printed += shell.run(code)
    assert WORDS[page] in printed


def test_the_code_of_others_could_run() -> None:
    """Theirs is not installed here; what is shown of it is at least Python, and a command of the shell."""
    text = (DOCS / "coming-from.md").read_text()
    theirs = re.findall(r"^```(py|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ours = [language for language, _ in blocks("coming-from.md")]
    assert len(theirs) == 5 and len(ours) == 6, "each beside ours, and the function of all"
    for language, code in theirs:
        if language == "py":
            compile(code, "coming-from.md", "exec")
        else:
            subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    for _, code in [*theirs, *blocks("coming-from.md")[1:]]:
        assert max(map(len, code.splitlines())) <= 56, "two beside each other fit a page"


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", (DOCS / page).read_text()):
        assert (DOCS / link).exists(), link


def test_the_index_has_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()
