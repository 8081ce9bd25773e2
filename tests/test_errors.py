"""The error tree: exit codes and what a person reads."""

import pickle

import pytest

from gnnsys import errors


def test_every_class_has_an_exit_code_of_its_own() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.GnnsysError)]
    codes = [c.exit_code for c in classes]
    assert len(classes) >= 10
    assert len(set(codes)) == len(codes)


def test_the_text_holds_code_message_and_hint() -> None:
    error = errors.InputDataError("GS-IN-003", "edges.csv row 4: node id -4 is negative", hint="Ids start at 0.")
    assert str(error) == "GS-IN-003: edges.csv row 4: node id -4 is negative\n  Ids start at 0."


@pytest.mark.parametrize("hint", ["", "Try again."])
def test_an_error_survives_the_way_between_processes(hint: str) -> None:
    back = pickle.loads(pickle.dumps(errors.ConfigError("GS-CFG-001", "wrong", hint=hint)))
    assert (type(back), str(back)) == (errors.ConfigError, str(errors.ConfigError("GS-CFG-001", "wrong", hint=hint)))
