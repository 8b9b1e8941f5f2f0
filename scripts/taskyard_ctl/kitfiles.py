"""Where the kit lies: compose file, Dockerfiles, locks, scripts and the sources that images are made of."""

from pathlib import Path


def kit_folder() -> Path:
    """The checkout, or in an installed wheel the copy of the same layout inside this package."""
    package = Path(__file__).resolve().parent
    packed = package / "kit"
    return packed if packed.is_dir() else package.parent.parent
