"""Run files: read with the place of what is wrong, written so that they read back as what was meant."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from gnnsys.errors import ConfigError, InputDataError
from gnnsys.training.config import TrainConfig, parse_config
from gnnsys.training.run_file import KEYS, explained, read_run_file, write_run_file


def file(folder: Path, *lines: str) -> Path:
    path = folder / "run.toml"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        (["[train]", "", "fanout = [10]"], "GS-CFG-002", "'fanout' in {path} line 3\n  Did you mean 'fanouts'?"),
        (["[train]", "zzz = 1"], "GS-CFG-002", "There are: source, store, out, model"),
        (["[train]", "lr = 0"], "GS-CFG-501", "lr is 0: input should be greater than 0, in {path} line 2"),
        (["[train]", "epochs = 2", 'lr = "fast"'], "GS-CFG-501", "{path} line 3"),
        (["[train]", "fanouts = [1, -2]"], "GS-CFG-501", "{path} line 2"),
        (["[train]", 'memory = "much"'], "GS-CFG-001", "'much' is not a size"),
        (["[train]", "source = 3"], "GS-CFG-501", "source is 3: it should be a path, in {path} line 2"),
        (["[train]", 'out = ""'], "GS-CFG-501", "out is '': it should be a path"),
        (["[trian]", "lr = 1"], "GS-CFG-881", "unknown table 'trian' in {path} line 1"),
        (["epochs = 3"], "GS-CFG-881", "Options stand under [train]."),
        (["[train]", "[train.model]", "lr = 1"], "GS-CFG-501", "model is {{'lr': 1}}: input should be a valid string"),
        (["[train]", "lr = 1", "lr = 2"], "GS-CFG-880", "Cannot overwrite a value"),
        (["[train"], "GS-CFG-880", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, lines: list[str], code: str, said: str) -> None:
    path = file(tmp_path, *lines)
    with pytest.raises(ConfigError) as caught:
        read_run_file(path)
    assert caught.value.code == code
    assert said.format(path=path) in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = file(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="GS-CFG-880"):
        read_run_file(path)


@pytest.mark.parametrize("name", ["nothing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputDataError, match="GS-IN-540"):
        read_run_file(tmp_path / name)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_run_file(file(tmp_path)) == {}


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    file(tmp_path / "conf", "[train]", 'source = "../pack"', f'out = "{tmp_path}/run"', 'model = "net.py:Net"')
    monkeypatch.chdir(tmp_path)
    found = read_run_file(Path("conf/run.toml"))
    assert found == {"source": "pack", "out": f"{tmp_path}/run", "model": "conf/net.py:Net"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 1e-5, "fanouts": (10, -1), "workers": 3, "recompute": True, "memory": 12345, "device": "cuda:1"},
        {"chunks": 4, "refresh": 3, "compensation": 0.5, "shuffle_chunks": False, "layers": 5},
        {"model": "sub/net.py:Net", "pipeline": 2, "schedule": "gpipe"},
    ],
)
def test_a_written_file_reads_back_as_the_same_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    config = parse_config(options)
    source = 'packs/ünï "q" \\ \x7f😀'
    write_run_file(Path("runs/a/config.toml"), config, {"source": source})
    found = read_run_file(Path("runs/a/config.toml"))
    assert found.pop("source") == source
    assert parse_config(found) == config


def test_a_run_may_move_with_what_it_read(tmp_path: Path) -> None:
    (tmp_path / "a" / "run").mkdir(parents=True)
    write_run_file(tmp_path / "a/run/config.toml", TrainConfig(), {"source": tmp_path / "a" / "pack"})
    (tmp_path / "a").rename(tmp_path / "b")
    assert read_run_file(tmp_path / "b/run/config.toml")["source"] == str(tmp_path / "b" / "pack")


def test_every_option_is_explained_and_defaults_are_comments(tmp_path: Path) -> None:
    given = {"source": "pack", "lr": 0.5, "fanouts": [10, 5]}
    text = explained(given, {"source": "run.toml", "lr": "a flag", "fanouts": "run.toml"})
    assert tomllib.loads(text) == {"train": given}
    assert "lr = 0.5  # a flag" in text
    assert "\n# hidden = 256\n" in text
    assert all(f"\n{key} =" in text or f"\n# {key} =" in text for key in KEYS)
    assert max(map(len, text.splitlines())) <= 120
    uncommented = text.replace("# hidden =", "hidden =")
    assert read_run_file(file(tmp_path, uncommented))["hidden"] == 256


def test_every_option_has_a_meaning() -> None:
    assert [name for name, field in TrainConfig.model_fields.items() if not field.description] == []
