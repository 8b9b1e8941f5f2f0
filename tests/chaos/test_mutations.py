"""The variants of `make mutations` still fit the code, and the tests that should notice them are there."""

import ast

import pytest
from machine import ROOT
from mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_can_be_applied(mutation: Mutation) -> None:
    was = ast.dump(ast.parse((ROOT / mutation.file).read_text()))
    assert ast.dump(ast.parse(mutation.applied(ROOT))) != was
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text()
