"""What the tests of this folder measured, as properties of the report and as a table at the end."""

import pytest

TABLE = pytest.StashKey[list[tuple[str, dict[str, object]]]]()


class Figures:
    """Takes figures of one test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._table = request.config.stash[TABLE]
        self._properties = request.node.user_properties

    def add(self, row: str, **values: object) -> None:
        self._table.append((row, values))
        self._properties += [(f"{row}: {name}", value) for name, value in values.items()]
