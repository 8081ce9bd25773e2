"""Checkpoints: complete or absent, verified byte by byte, never falling back in silence."""

import os
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from gnnsys.errors import ConfigError, CorruptStoreError
from gnnsys.training.checkpoint import Checkpoint, Checkpoints
from gnnsys.training.memory import growth_of
from gnnsys.training.tensors import assign_weights, decode, encode, join_optimizer, split_optimizer, weights_digest


def checkpoint(step: int) -> Checkpoint:
    tensors = {"model": {"w": torch.full((3,), float(step))}, "optimizer": {"0/0/step": torch.tensor(float(step))}}
    return Checkpoint(step=step, tensors=tensors, state={"loss": 0.1 + 0.2, "step": step})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "d").commit(checkpoint(7))
    found, problems = Checkpoints(tmp_path, "d").load_latest()
    assert problems == []
    assert found is not None
    assert found.step == 7
    assert found.state == {"loss": 0.1 + 0.2, "step": 7}
    assert torch.equal(found.tensors["model"]["w"], torch.full((3,), 7.0))
    assert found.tensors["optimizer"]["0/0/step"].shape == ()


def test_loading_holds_the_bytes_of_one_file_at_a_time(tmp_path: Path) -> None:
    values = torch.zeros(4 << 20)
    tensors = {"model": {"w": values}, "optimizer": {"0/0/m": values, "0/0/v": values.clone()}}
    checkpoints = Checkpoints(tmp_path, "d")
    checkpoints.commit(Checkpoint(step=1, tensors=tensors, state={}))
    grown = growth_of(checkpoints.load_latest)
    # the tensors, the bytes of the largest file, and what the meter adds for what it may have missed
    assert grown <= (3 + 2) * values.nbytes + (6 << 20)


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", "d").load_latest() == (None, [])


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "d")
    for step in (1, 2, 3, 4, 5):
        checkpoints.commit(checkpoint(step), best="ckpt-000002")
    assert names(tmp_path) == ["ckpt-000002", "ckpt-000004", "ckpt-000005", "latest"]


def test_equal_checkpoints_are_equal_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        Checkpoints(tmp_path / folder, "d").commit(checkpoint(1))
    for name in names(tmp_path / "a" / "ckpt-000001"):
        a, b = ((tmp_path / folder / "ckpt-000001" / name).read_bytes() for folder in ("a", "b"))
        assert a == b


def test_a_checkpoint_is_durable_before_it_gets_its_name_and_before_latest_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def short(path: str | Path) -> str:
        return re.sub(r"\.tmp[-./].*", ".tmp", str(Path(path).relative_to(tmp_path)))

    def logged_fsync(fd: int) -> None:
        log.append(f"sync {short(Path(f'/proc/self/fd/{fd}').readlink())}")
        fsync(fd)

    def logged_replace(source: Path, target: Path) -> Path:
        log.append(f"name {short(target)}")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    Checkpoints(tmp_path, "d").commit(checkpoint(1))
    # a file's name ends where the temporary folder's begins: five files and the folder itself
    assert log == [
        *["sync ckpt-000001.tmp"] * 5,
        *("name ckpt-000001", "sync .", "sync .latest.tmp", "name latest", "sync ."),
    ]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / "ckpt-000001.tmp").mkdir()
    (tmp_path / ".latest.tmp.99.abc").touch()
    Checkpoints(tmp_path, "d").commit(checkpoint(2))
    assert names(tmp_path) == ["ckpt-000002", "latest"]


FILES = ["model.0.safetensors", "optimizer.0.safetensors", "state.json", "manifest.json"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def swap(path: Path) -> None:
    path.write_bytes((path.parents[1] / "ckpt-000001" / path.name).read_bytes())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, truncate, swap, Path.unlink])
def test_a_damaged_latest_falls_back_to_the_one_before_and_says_so(tmp_path: Path, name: str, damage: object) -> None:
    checkpoints = Checkpoints(tmp_path, "d")
    checkpoints.commit(checkpoint(1))
    checkpoints.commit(checkpoint(2))
    damage(tmp_path / "ckpt-000002" / name)  # type: ignore[operator]
    found, problems = Checkpoints(tmp_path, "d").load_latest()
    assert found is not None
    assert found.step == 1
    assert len(problems) == 1
    assert "ckpt-000002" in problems[0]


def test_a_whole_checkpoint_under_the_name_of_another_is_noticed(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "d").commit(checkpoint(1))
    (tmp_path / "ckpt-000001").rename(tmp_path / "ckpt-000002")
    found, problems = Checkpoints(tmp_path, "d").load_latest()
    assert found is None
    assert any("ckpt-000002" in problem for problem in problems)


def test_latest_may_name_something_that_is_gone(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "d").commit(checkpoint(1))
    (tmp_path / "latest").write_text("ckpt-000009\n")
    found, problems = Checkpoints(tmp_path, "d").load_latest()
    assert found is not None
    assert found.step == 1
    assert len(problems) == 1


def test_latest_cannot_name_a_folder_elsewhere(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "run", "d").commit(checkpoint(1))
    Checkpoints(tmp_path / "other", "d").commit(checkpoint(5))
    (tmp_path / "run" / "latest").write_text("../other/ckpt-000005")
    found, _ = Checkpoints(tmp_path / "run", "d").load_latest()
    assert found is not None
    assert found.step == 1


def test_a_step_whose_damaged_folder_is_in_the_way_can_be_written_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "d")
    for step in (1, 2):
        checkpoints.commit(checkpoint(step))
    flip(tmp_path / "ckpt-000002" / "state.json")
    again = Checkpoints(tmp_path, "d")
    again.load_latest()
    again.commit(checkpoint(2))
    assert again.load("ckpt-000002").step == 2
    assert names(tmp_path) == ["ckpt-000001", "ckpt-000002", "latest"]


def test_checkpoints_of_another_configuration_are_not_loaded(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "d").commit(checkpoint(1))
    found, problems = Checkpoints(tmp_path, "other").load_latest()
    assert found is None
    assert "another configuration" in problems[0]


def test_shared_tensors_are_stored_once_and_restored() -> None:
    shared = torch.arange(1000.0)
    data = encode({"a": shared, "b": shared, "c": shared.clone()})
    assert len(data) < 3 * shared.nbytes
    assert all(torch.equal(tensor, shared) for tensor in decode(data, Path("x")).values())
    assert set(decode(data, Path("x"))) == {"a", "b", "c"}


def test_weights_are_readable_with_safetensors_alone(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    (tmp_path / "m").write_bytes(encode(model.state_dict()))
    found = safetensors.torch.load_file(tmp_path / "m")
    assert torch.equal(found["weight"], model.weight)


@pytest.mark.parametrize("data", [b"", b"\x00" * 8, b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"{}garbage"])
def test_bytes_that_are_not_safetensors_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptStoreError, match="not a valid safetensors file"):
        decode(data, Path("x"))


def test_weights_of_another_model_list_what_differs_apart() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2, bias=False)})
    other = nn.ModuleDict({"a": nn.Linear(4, 2), "c": nn.Linear(2, 2, bias=False)}).double()
    before = weights_digest(model)
    with pytest.raises(ConfigError) as caught:
        assign_weights(model, other.state_dict(), Path("x"))
    message = caught.value.message
    assert "missing: b.weight;" in message
    assert "unexpected: c.weight;" in message
    assert "a.weight is float64[2, 4], the model has float32[2, 3]" in message
    assert weights_digest(model) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.9)),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW([{"params": p[:1], "lr": 0.2}, {"params": p[1:]}], amsgrad=True),
    ],
    ids=["adam", "sgd", "two-groups"],
)
def test_an_optimizer_goes_on_exactly_where_it_was(make: object, tmp_path: Path) -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = make(list(model.parameters()))  # type: ignore[operator]
    steps(model, optimizer, 3)
    names = [name for name, _ in model.named_parameters()]
    tensors, rest = split_optimizer(optimizer.state_dict(), names)
    found = Checkpoint(step=3, tensors={"model": model.state_dict(), "optimizer": tensors}, state=rest)
    Checkpoints(tmp_path, "d").commit(found)
    back = Checkpoints(tmp_path, "d").load("ckpt-000003")

    copy = nn.Linear(3, 2)
    assign_weights(copy, back.tensors["model"], tmp_path)
    resumed = make(list(copy.parameters()))  # type: ignore[operator]
    resumed.load_state_dict(join_optimizer(back.tensors["optimizer"], back.state, names))
    steps(model, optimizer, 3)
    steps(copy, resumed, 3)
    assert weights_digest(model) == weights_digest(copy)


def test_optimizer_state_that_is_not_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match="weight/history is a list"):
        split_optimizer({"state": {0: {"history": [1]}}, "param_groups": [{"params": [0]}]}, ["weight"])


def test_the_digest_of_weights_depends_on_names_shapes_types_and_bits() -> None:
    torch.manual_seed(0)
    base = nn.Linear(2, 2, bias=False)
    digests = {weights_digest(base), weights_digest(nn.ModuleDict({"a": base})), weights_digest(base.double())}
    with torch.no_grad():
        base.weight[0, 0].add_(1e-12)
    assert len({*digests, weights_digest(base)}) == 4
