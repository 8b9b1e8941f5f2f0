"""What is generated from the code is current: `python -m taskyard_ctl.generate` makes it so."""

from pathlib import Path

import pytest

from taskyard.settings import REGISTRY, Settings
from taskyard_ctl import envfile, generate

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", sorted(generate.files()))
def test_it_is_current(name: str) -> None:
    assert (ROOT / name).read_text() == generate.files()[name], "run: python -m taskyard_ctl.generate"


def test_the_example_means_the_defaults(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text().replace("\n#TASKYARD_", "\nTASKYARD_")
    (tmp_path / ".env").write_text(text)
    values = envfile.read(tmp_path / ".env")
    assert set(values) == {setting.variable for setting in REGISTRY}
    assert Settings.from_env(values, need_key=False).values == Settings.from_env({}, need_key=False).values
