"""build: names, files of the user, seeds and refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gnnsys.errors import ConfigError
from gnnsys.models.registry import NAMES, build, identity

SIZES: dict[str, Any] = {"in_channels": 5, "hidden_channels": 8, "num_layers": 2, "out_channels": 3, "dropout": 0.1}

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, hidden_channels, num_layers, out_channels, dropout):
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index):
        return self.lin(x)

class Narrow(nn.Module):
    def __init__(self, in_channels):
        super().__init__()

class Plain:
    pass
"""


@pytest.fixture
def net_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(NET)
    return path


def weights(name: str, **changes: Any) -> dict[str, torch.Tensor]:
    return build(name, **{**SIZES, **changes}).state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_depend_on_the_seed_and_on_nothing_drawn_before(name: str) -> None:
    first = weights(name, seed=1)
    torch.rand(5)
    again, other = weights(name, seed=1), weights(name, seed=2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if key.endswith("weight") and not key.endswith(("norm.weight", "norm_out.weight"))]
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_starts_the_same_whatever_follows_it(name: str) -> None:
    short, long = weights(name), weights(name, num_layers=4, out_channels=7)
    assert all(torch.equal(short[key], long[key]) for key in short if key.startswith("layers.0."))


def test_building_leaves_the_generator_where_it_was(net_file: Path) -> None:
    torch.manual_seed(3)
    first = torch.rand(2)
    torch.manual_seed(3)
    weights("sage")
    weights(f"{net_file}:Net")
    assert torch.equal(torch.rand(2), first)


def test_a_class_from_the_users_file_is_built_from_the_seed(net_file: Path) -> None:
    first, again = weights(f"{net_file}:Net", seed=1), weights(f"{net_file}:Net", seed=1)
    assert torch.equal(first["lin.weight"], again["lin.weight"])
    assert not torch.equal(first["lin.weight"], weights(f"{net_file}:Net", seed=2)["lin.weight"])


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"'sgae'.*\n.*sage"):
        build("sgae", **SIZES)


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(ConfigError, match=", ".join(NAMES)):
        build("transformer", **SIZES)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("absent.py:Net", "no such file"),
        ("my_model.py", "names no class"),
        ("my_model.py:Nett", r"named 'Nett'\n.*Net, Narrow, Plain"),
        ("my_model.py:Plain", "no torch module class named 'Plain'"),
        ("my_model.py:Narrow", r"unexpected keyword|got an unexpected"),
    ],
)
def test_what_is_wrong_with_a_users_model_is_said(net_file: Path, spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(str(net_file.parent / spec), **SIZES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Net(", r"broken\.py cannot be loaded: SyntaxError.* line 1"),
        ("import torch\n\nno_such_name()", r"cannot be loaded: NameError: .*no_such_name.* \(.*broken\.py:3\)"),
        (
            NET.replace("super().__init__()\n        self", "1 / 0\n        self"),
            r"constructed: ZeroDivisionError: .*:6\)",
        ),
    ],
)
def test_a_file_that_fails_is_named_with_the_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        build(f"{path}:Net", **SIZES)


def test_a_users_model_is_known_by_its_class_and_code_not_by_its_path(net_file: Path, tmp_path: Path) -> None:
    known = identity(f"{net_file}:Net")
    (tmp_path / "sub").mkdir()
    moved = tmp_path / "sub" / "other.py"
    moved.write_bytes(net_file.read_bytes())
    assert identity(f"{tmp_path}/./my_model.py:Net") == identity(f"{moved}:Net") == known
    assert identity(f"{net_file}:Narrow") != known
    moved.write_text(NET + "# more\n")
    assert identity(f"{moved}:Net") != known
    assert identity("gcn") == {"name": "gcn"}
