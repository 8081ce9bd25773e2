"""TrainConfig: checked once, unknown names refused, one digest for what decides the weights."""

import re

import pytest

from gnnsys.errors import ConfigError
from gnnsys.training.config import NOT_DECISIVE, TrainConfig, config_digest, parse_config


def test_an_unknown_option_suggests_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'fanouts'") as caught:
        parse_config({"fanout": [10]})
    assert caught.value.code == "GS-CFG-002"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lr", 0, "lr is 0: "),
        ("dropout", 1.0, "dropout is 1.0: "),
        ("epochs", 0, "epochs is 0: "),
        ("metric", "f2", "metric is 'f2': "),
        ("fanouts", [3, -2], "fanouts is -2: "),
        ("lr", "fast", "lr is 'fast': "),
        ("device", "tpu", "device is 'tpu': "),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_given(name: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_config({name: value})


def test_options_that_were_not_given_keep_their_defaults() -> None:
    assert parse_config({"lr": None, "hidden": None}) == TrainConfig()


def test_memory_is_written_as_people_write_it() -> None:
    assert parse_config({"memory": "64MiB"}).memory == 64 << 20
    assert parse_config({"memory": 1 << 20}).memory == 1 << 20


def test_options_that_cannot_change_the_weights_do_not_change_the_digest() -> None:
    other = {"memory": 1, "workers": 3, "threads": 3, "checkpoint_steps": 3, "rows": "direct", "prefetch": 3}
    other |= {"pipeline": 2, "schedule": "gpipe", "stall_timeout": 1.0, "recompute": True}
    of_chunks = {"guard_every": 3}
    assert set(other | of_chunks) == set(NOT_DECISIVE)
    assert config_digest(parse_config(other).decisive()) == config_digest(TrainConfig().decisive())
    looked_at = parse_config({"chunks": 3, **of_chunks})
    assert config_digest(looked_at.decisive()) == config_digest(parse_config({"chunks": 3}).decisive())


@pytest.mark.parametrize(("name", "value"), [("lr", 0.5), ("seed", 1), ("fanouts", [3]), ("epochs", 11)])
def test_options_that_decide_the_weights_change_the_digest(name: str, value: object) -> None:
    assert config_digest(parse_config({name: value}).decisive()) != config_digest(TrainConfig().decisive())
