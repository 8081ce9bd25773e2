"""The page about a run says what the run says, whatever state and name it has."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import gnnsys as gs
from gnnsys.errors import ConfigError, CorruptStoreError, InputDataError
from gnnsys.reporting.charts import Line, chart
from gnnsys.reporting.facts import STAGES, read_run
from gnnsys.reporting.report import report
from gnnsys.reporting.tensorboard import write_tensorboard
from gnnsys.training.events import read_events
from gnnsys.training.folder import read_json, write_json
from gnnsys.training.run import train_from_config
from gnnsys.units import format_size


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs that differ in their seed."""
    folder = tmp_path_factory.mktemp("made")
    store = gs.ingest("synthetic:powerlaw:nodes=800,edges=6000,feat=8,classes=3", folder / "store", memory="16MiB")
    gs.pack(store, folder / "pack", fanouts=[4, 3], batch_size=64, memory="32MiB")
    for seed in (0, 1):
        options = {"model": "sage", "hidden": 8, "epochs": 3, "seed": seed, "threads": 1, "memory": "512MiB"}
        train_from_config(folder / "pack", options, folder / f"run-{seed}")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the first run that a test may harm."""
    return Path(shutil.copytree(made / "run-0", tmp_path / "run"))


class _Parsed(HTMLParser):
    """Tags that were opened and not closed, and what anything points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_scores_memory_and_options_are_those_of_the_run(made: Path, tmp_path: Path) -> None:
    text = report([made / "run-0"], tmp_path / "a.html").read_text()
    result = json.loads((made / "run-0" / "result.json").read_text())
    for split in ("train", "valid", "test"):
        assert f"<b>{result['metrics'][split]['acc']:.4f}</b><span>acc on {split}</span>" in text
    assert f"<b>{result['best_epoch'] + 1} of 3</b><span>best epoch</span>" in text
    assert "<th>memory</th><td>512.0 MiB</td>" in text
    store = gs.Store.open(made / "store")
    assert f"store: 800 nodes, {store.num_edges:,} edges, 8 columns</p>" in text
    assert f"gnnsys train -c {made / 'run-0' / 'config.toml'} --out ELSEWHERE" in text
    assert "interrupted" not in text
    assert result["weights_digest"] in text
    assert "of 512.0 MiB given" in text
    assert "Plan for pool" in text
    assert "<th>model.hidden_channels</th><td>8</td>" in text


def test_the_plan_of_another_pack_that_took_the_place_of_the_runs_is_not_shown(made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made / "run-0", tmp_path / "run")
    gs.pack(gs.Store.open(made / "store"), made / "other", fanouts=[2, 2], batch_size=64, memory="32MiB")
    config = read_json(run / "config.json")
    write_json(run / "config.json", config | {"source_path": str(made / "other")})
    text = report([run], tmp_path / "a.html").read_text()
    assert "Plan for pool" not in text
    assert "holds another pack now than the one that this run read" in text
    write_json(run / "config.json", config | {"source_path": str(made / "nowhere")})
    assert "The plan of the pack" not in report([run], tmp_path / "a.html").read_text()


def test_curves_have_a_point_for_every_epoch(made: Path, tmp_path: Path) -> None:
    text = report([made / "run-0"], tmp_path / "a.html").read_text()
    loss = re.search(r"<figcaption>Loss</figcaption>.*?points=\"([^\"]+)\"", text)
    assert loss is not None
    assert len(loss[1].split()) == 3
    facts = json.loads((tmp_path / "a.report.json").read_text())["runs"]
    losses = json.loads((made / "run-0" / "result.json").read_text())["losses"]
    assert [epoch["loss"] for epoch in facts[0]["epochs"]] == losses


def test_runs_that_differ_in_their_seed_have_a_mean(made: Path, tmp_path: Path) -> None:
    text = report([made / "run-0", made / "run-1"], tmp_path / "a.html").read_text()
    scores = [json.loads((made / f"run-{s}" / "result.json").read_text())["metrics"]["test"]["acc"] for s in (0, 1)]
    mean, deviation = sum(scores) / 2, abs(scores[0] - scores[1]) / 2**0.5
    assert f"<td>run-0 and 1 like it, mean ± deviation</td><td>{mean:.4f} ± {deviation:.4f}</td>" in text
    assert "<td>options.seed</td><td>0</td><td>1</td>" in text
    assert "model.hidden_channels</td>" not in text.split("What they share")[0]


def _another(run: Path, out: Path, test: float, **decisive: dict[str, object]) -> Path:
    """A copy of a run that ended in other weights and scored `test`, with other options."""
    shutil.copytree(run, out)
    config, result = read_json(out / "config.json"), read_json(out / "result.json")
    was = config["decisive"]
    write_json(out / "config.json", config | {"decisive": was | {k: was[k] | v for k, v in decisive.items()}})
    metrics = result["metrics"] | {"test": {"acc": test}}
    write_json(out / "result.json", result | {"metrics": metrics, "weights_digest": f"sha256:{out.name}"})
    return out


def test_several_models_have_a_mean_each(run: Path, tmp_path: Path) -> None:
    runs = [
        _another(run, tmp_path / f"{name}-{seed}", score, model={"name": name}, options={"seed": seed})
        for name, seed, score in (("sage", 0, 0.5), ("gcn", 0, 0.25), ("sage", 1, 0.75), ("gat", 0, 1.0))
    ]
    text = report(runs, tmp_path / "a.html").read_text()
    assert "<td>sage-0 and 1 like it, mean ± deviation</td><td>0.6250 ± 0.1768</td>" in text
    assert text.count("mean ± deviation") == 1


def test_digests_that_differ_are_told_by_their_beginning(run: Path, tmp_path: Path) -> None:
    runs = [_another(run, tmp_path / str(n), n / 4, source={"pool": f"xxh3-128:{str(n) * 32}"}) for n in (1, 3)]
    for n, path in zip((1, 3), runs, strict=True):
        write_json(path / "config.json", read_json(path / "config.json") | {"trained_split": f"train.{n}"})
    text = report(runs, tmp_path / "a.html").read_text()
    assert "<td>source.pool</td><td>xxh3-128:111111111111…</td><td>xxh3-128:333333333333…</td>" in text
    assert "<td>trained on</td><td>train.1</td><td>train.3</td>" in text


def test_what_was_given_does_not_hide_what_was_used(made: Path, tmp_path: Path) -> None:
    text = report([made / "run-0"], tmp_path / "a.html").read_text()
    assert re.findall(r'class="c\d limit"', text) == ['class="c1 limit"'] * 2
    assert "polyline.limit{stroke-dasharray" in text


@pytest.mark.parametrize("names", [["run-0"], ["run-0", "run-1"]])
def test_a_page_is_whole_fetches_nothing_and_is_the_same_twice(names: list[str], made: Path, tmp_path: Path) -> None:
    first = report([made / name for name in names], tmp_path / "a.html").read_bytes()
    assert first == report([made / name for name in names], tmp_path / "b.html").read_bytes()
    parsed = _Parsed(first.decode())
    assert parsed.open == []
    assert parsed.targets == []
    assert not {"script", "link", "img", "iframe"} & {*parsed.names}
    assert "http" not in first.decode()
    assert "url(" not in first.decode()


def test_what_a_run_is_called_is_text_and_nothing_else(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made / "run-0", tmp_path / '<script>alert("1")&'))
    text = report([folder, made / "run-1"], tmp_path / "a.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(&quot;1&quot;)&amp;" in text
    assert _Parsed(text).open == []


def test_a_run_that_was_killed_has_a_page_that_says_so(run: Path) -> None:
    (run / "result.json").unlink()
    events = run / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    second = next(n for n, line in enumerate(lines) if b'"epoch": 1' in line and b'"kind": "epoch"' in line)
    events.write_bytes(b"".join(lines[:second]) + lines[second][:-20])
    text = report([run]).read_text()
    assert "not finished: 1 of 3 epochs" in text
    assert "<b>" in text


def test_memory_of_every_epoch_is_below_the_peak_and_drawn(made: Path) -> None:
    facts = read_run(made / "run-0")
    assert facts.result is not None
    assert len(facts.epochs) == 3
    assert all(0 < (epoch.growth or 0) <= facts.result["peak_growth_bytes"] for epoch in facts.epochs)
    assert "Memory by epoch, and what was given" in report([made / "run-0"]).read_text()


def test_memory_of_several_processes_is_drawn_of_the_first_and_says_so(run: Path) -> None:
    result = read_json(run / "result.json")
    write_json(run / "result.json", result | {"pipeline": {"ranks": [{}, {}]}})
    assert "Memory of the first process by epoch" in report([run]).read_text()


@pytest.mark.parametrize("top", [3.0, 900.0, 5e5, 7e8, 3e12])
def test_an_axis_of_bytes_has_round_numbers_of_their_unit(top: float) -> None:
    drawn = chart("a", "b", [Line("c", [(0, top), (1, top / 3)])], lambda v: f"<{v!r}>", zero=True, binary=True)
    ticks = [float(v) for v in re.findall(r"&lt;([\d.e+]+)&gt;</text>", drawn)]
    unit = next(u for u in (1024.0**4, 1024.0**3, 1024.0**2, 1024.0, 1.0) if top >= u)
    assert len(ticks) >= 3
    assert all(abs(v / unit * 10 - round(v / unit * 10)) < 1e-6 for v in ticks)


def test_warnings_of_a_run_are_shown(run: Path) -> None:
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "warning", "code": "GS-X-001", "msg": "a < b"}) + "\n")
    assert "GS-X-001: a &lt; b" in report([run]).read_text()


def test_what_is_not_a_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="no run there"):
        report([tmp_path])
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        report([run], tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match="of no run"):
        report([])
    (run / "result.json").write_text("{}")
    with pytest.raises(CorruptStoreError, match="checksum"):
        report([run])


@pytest.mark.parametrize("seed", range(40))
def test_a_page_is_made_of_what_damaged_events_still_say(seed: int, run: Path) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray((run / "events.jsonl").read_bytes())
    for place in rng.integers(len(data), size=1 + seed % 12):
        data[place] = int(rng.integers(256)) if seed % 2 else data[place] ^ (1 << int(rng.integers(8)))
    (run / "events.jsonl").write_bytes(data)
    text = report([run]).read_text()
    assert _Parsed(text).open == []
    assert ("lines that could not be read" in text) == (read_events(run / "events.jsonl").unreadable > 0)
    report([run, run], run / "both.html")


def test_a_finished_run_without_events_has_its_scores(made: Path, run: Path) -> None:
    (run / "events.jsonl").unlink()
    text = report([run]).read_text()
    assert "events.jsonl is missing or empty: there are no curves" in text
    assert "acc on test</span>" in text
    assert "acc, test</th>" in report([run, made / "run-1"], run / "both.html").read_text()


@pytest.mark.parametrize("name", ["result", "config", "model"])
def test_a_report_called_like_a_file_of_the_run_leaves_the_run_as_it_was(name: str, run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    report([run], run / f"{name}.html")
    report([run], run / f"{name}.html")  # an earlier report may be replaced
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name in before} == before
    assert {path.name for path in run.iterdir() if path.is_file()} - {*before} == {
        f"{name}.html",
        f"{name}.report.json",
    }


@pytest.mark.parametrize("name", ["a.html", "a.report.json"])
def test_a_file_that_is_no_report_is_not_replaced(name: str, made: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(ConfigError, match=rf"{re.escape(name)}: is there already and is no report"):
        report([made / "run-0"], tmp_path / "a.html")
    assert (tmp_path / name).read_text() == "mine\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_waiting_is_the_share_of_all_steps_of_all_epochs(run: Path) -> None:
    events = list(read_events(run / "events.jsonl"))
    epochs = [event for event in events if event["kind"] == "epoch"]
    assert all(0 <= e["wait_s"] <= e["wall_s"] == pytest.approx(e["wait_s"] + e["compute_s"]) for e in epochs)
    for event, waited in zip(epochs, (0.5, 1.0, 0.75), strict=True):
        event |= {"wall_s": 1.0, "wait_s": waited}
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert "<b>75%</b><span>of the time of all epochs spent waiting for data" in report([run]).read_text()
    for event in epochs:
        del event["wait_s"]  # as runs had it once
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    text = report([run]).read_text()
    assert "spent waiting for data" not in text
    assert "<figcaption>Loss</figcaption>" in text


def test_time_is_drawn_by_stage(made: Path, run: Path) -> None:
    events = [event for event in read_events(run / "events.jsonl") if event["kind"] == "epoch"]
    for event in events:
        assert min(event[stage] for stage in STAGES) >= 0
        assert min(event[stage] for stage in ("compute_s", "eval_s", "load_s", "read_s", "assemble_s")) > 0
    text = report([run]).read_text()
    assert all(what in text for what in STAGES.values())


def test_runs_on_several_graphs_and_splits_stand_side_by_side(made: Path, run: Path, tmp_path: Path) -> None:
    config, result = read_json(run / "config.json"), read_json(run / "result.json")
    write_json(run / "config.json", config | {"graph": {"name": "other", "id": "another", "nodes": 7, "edges": 9}})
    metrics = {f"{split}.3": scores for split, scores in result["metrics"].items()}
    write_json(run / "result.json", result | {"metrics": metrics})
    text = report([made / "run-1", run], tmp_path / "a.html").read_text()
    assert "<td>other: 7 nodes, 9 edges, 8 columns</td>" in text
    assert "<th>acc, test</th><th>acc, valid</th><th>acc, train</th><th>best epoch</th>" in text


def test_a_run_that_went_on_says_so_and_one_in_chunks_shows_its_drift(run: Path) -> None:
    result = read_json(run / "result.json")
    drifts = [{"epoch": 1, "loss": 0.123, "exact": 0.456}]
    write_json(run / "result.json", result | {"resumed_from": "ckpt-000007", "drifts": drifts})
    text = report([run]).read_text()
    assert "interrupted and continued" in text
    assert "<th>started</th><td>2 times, the last time from ckpt-000007</td>" in text
    assert "<tr><td>2</td><td>0.123</td><td>0.456</td></tr>" in text


def test_runs_of_one_name_are_told_apart_and_equal_weights_are_no_seeds(made: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(made / "run-0", tmp_path / name / "run-0")
    config = read_json(tmp_path / "b" / "run-0" / "config.json")
    write_json(tmp_path / "b" / "run-0" / "config.json", config | {"threads": 7})
    text = report([tmp_path / name / "run-0" for name in ("a", "b")], tmp_path / "a.html").read_text()
    assert "<th>a/run-0</th><th>b/run-0</th>" in text
    assert "mean ± deviation" not in text
    assert "<th>does not decide the weights</th>" in text
    assert "<td>torch threads</td><td>1</td><td>7</td>" in text
    result = read_json(made / "run-0" / "result.json")
    assert f"<td>{format_size(result['peak_growth_bytes'])}</td>" in text


def test_on_a_phone_numbers_are_whole_and_axes_can_be_read(made: Path, tmp_path: Path) -> None:
    text = report([made / "run-0"], tmp_path / "a.html").read_text()
    assert "td{font-variant-numeric:tabular-nums;white-space:nowrap}" in text
    size, width = int(re.search(r"svg text{[^}]*font-size:(\d+)px", text)[1]), 400 - 2 * (20 + 17)  # type: ignore[index]
    assert size * width / 560 >= 10


def test_ticks_are_round_and_enclose_the_values() -> None:
    text = chart("a", "x", [Line("a", [(0, 0.13), (1, 0.87), (2, float("nan"))])], lambda value: f"{value:.2g}")
    assert re.findall(r">([\d.]+)</text>", text)[:6] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert text.count(",") >= 2
    assert "nan" not in text
    assert chart("a", "x", [Line("a", [])], str) == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_back_what_was_written(made: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    facts = read_run(made / "run-0")
    write_tensorboard(facts, tmp_path)
    write_tensorboard(facts, tmp_path)
    assert len([*(tmp_path / "run-0").iterdir()]) == 1
    found = EventAccumulator(str(tmp_path / "run-0")).Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [0, 1, 2]
    assert [event.value for event in found.Scalars("train/loss")] == pytest.approx([e.loss for e in facts.epochs])
    events = [event for event in read_events(made / "run-0" / "events.jsonl") if event["kind"] == "epoch"]
    for tag, key in (("train/lr", "lr"), ("perf/read_s", "read_s"), ("mem/growth_bytes", "growth_bytes")):
        assert [e.value for e in found.Scalars(tag)] == pytest.approx([event[key] for event in events])
    assert [e.value for e in found.Scalars("io/read_bytes")] == pytest.approx(facts.result["bytes_read"])  # type: ignore[index]
    assert found.Scalars("final/test/acc")[0].value == pytest.approx(facts.result["metrics"]["test"]["acc"])  # type: ignore[index]
