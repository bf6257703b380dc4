"""What training costs: the measurements at a tiny size, the committed results, and the page made of them."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup

from benchmarks import scaling, throughput, training
from benchmarks.cards import PEAKS, share_of_peak
from benchmarks.memory import Memory
from flowlib.data import load_dataset
from flowlib.train.flow_for import recipe, sizes_of
from tests.book.conftest import ROOT, build_results_page

CPU = torch.device("cpu")
SMALL = {"layers": 1, "scales": 1, "hidden": 4, "side": 16, "batch": 2}


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / "training.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def threads():
    """The measurements set one thread; other tests get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# --- the measurements -------------------------------------------------------------------------


def test_memory_is_the_peak_above_the_start() -> None:
    used = torch.ones(20_000_000)
    memory = Memory(CPU)
    assert memory.peak() < 8e6
    more = torch.ones(20_000_000)
    assert 72e6 < memory.peak() < 100e6
    del more
    assert memory.peak() > 72e6, "A peak stays when the memory is given back."
    if Path("/proc/self/clear_refs").exists():
        memory.restart()
        assert memory.peak() < 8e6
    assert len(used)


def test_each_model_has_a_process_of_its_own() -> None:
    assert training.alone(os.getpid) != os.getpid()


@pytest.mark.parametrize("name", ["realnvp", "wavelet"])
def test_a_model_is_measured(name: str, committed: dict[str, Any]) -> None:
    row = training.Row("A title", name, {"layers": 2, "hidden": (4,)}, flat=name == "realnvp")
    state = torch.get_rng_state()
    found = training.measure(row, steps=4)
    assert found.keys() == committed["models"][name].keys()
    assert found["in_a_row"] is (name == "realnvp")
    assert [step for step, _ in found["curve"]] == [1, 2, 3, 4]
    assert found["seconds"] == pytest.approx(4e-3 * found["step_ms"])
    assert len(set(found["test_bits"])) == training.DRAWS
    assert all(3 < bits < 7 for bits in found["test_bits"])
    torch.set_rng_state(state)
    assert training.measure(row, steps=4)["test_bits"] == found["test_bits"]


def test_every_row_is_a_model_with_sizes_of_its_own() -> None:
    for name, row in training.ROWS.items():
        assert name == row.model
        sizes_of(row.model, row.sizes)


def test_operations_are_counted_forwards_and_backwards() -> None:
    net = torch.nn.Linear(3, 5, bias=False)
    x = torch.ones(7, 3, requires_grad=True)
    assert scaling.flops(lambda: net(x)) == 2 * 7 * 3 * 5
    assert scaling.flops(lambda: net(x).sum().backward()) == 3 * 2 * 7 * 3 * 5


def test_twice_the_side_is_four_times_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "REPEATS", 1)
    base, large = (scaling.measure(name, base=SMALL) for name in ("base", "side"))
    assert large["sizes"] == SMALL | {"side": 32}
    assert large["parameters"] == base["parameters"]
    # the 1×1 convolutions multiply L by U once, whatever the number of pixels
    assert 3.7 < large["gflops"] / base["gflops"] <= 4


@pytest.fixture(scope="module")
def tiny_throughput() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "LEAST", 1e-3)
        return throughput.run(throughput.TINY, "cpu", compiled=False, rounds=1)


def test_throughput_at_a_tiny_size(tiny_throughput: dict[str, Any]) -> None:
    entries = tiny_throughput["entries"]
    assert {"float32, eager", "bfloat16, eager", "one scale, flowlib"} <= entries.keys()
    assert all(entry["images_per_second"] > 0 for entry in entries.values())
    assert all(entry["share_of_peak"] is None for entry in entries.values()), "A processor has no entry."
    assert entries["float32, eager"]["parameters"] == entries["bfloat16, eager"]["parameters"]
    assert len({entry["parameters"] for name, entry in entries.items() if "one scale" in name}) == 1


def test_throughput_computes_networks_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is timed, and not only while it is prepared."""
    seen = []
    monkeypatch.setattr(throughput, "OTHERS", ())
    monkeypatch.setattr(
        throughput,
        "prepare",
        lambda model, *rest: ({"gflops_per_image": 0.0}, lambda: seen.append(dtypes(model))),
    )
    monkeypatch.setattr(
        throughput, "interleave", lambda steps, *rest: {name: step() or 1.0 for name, step in steps.items()}
    )
    throughput.run(throughput.TINY, "cpu", compiled=False)
    assert seen == [{None}, {torch.bfloat16}, {None}]


def dtypes(model: torch.nn.Module) -> set[torch.dtype | None]:
    return {module.autocast_dtype for module in model.modules() if hasattr(module, "autocast_dtype")}


@pytest.mark.parametrize(
    ("card", "precision", "share"),
    [
        ("NVIDIA H200", "bfloat16", 1e12 / 989e12),
        ("NVIDIA H200 NVL", "bfloat16", None),  # another card, with other peaks
        ("NVIDIA A100-SXM4-80GB", "float32", 1e12 / 156e12),
        ("Tesla T4", "bfloat16", None),
    ],
)
def test_the_share_of_a_known_card(card: str, precision: str, share: float | None) -> None:
    assert share_of_peak(card, precision, 1e12) == (None if share is None else pytest.approx(share))


def test_float32_is_never_faster_than_bfloat16() -> None:
    assert all(peaks["float32"] <= peaks.get("bfloat16", 1e9) / 2 for peaks in PEAKS.values())


@pytest.mark.parametrize("module", [training, throughput])
def test_without_a_gpu_the_command_says_so(module, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--device", "cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        module.main()
    assert "There is no CUDA device here" in capsys.readouterr().err


# --- the results ------------------------------------------------------------------------------


def test_every_model_is_in_the_results(committed: dict[str, Any]) -> None:
    assert committed["models"].keys() == training.ROWS.keys()
    for name, row in training.ROWS.items():
        found = committed["models"][name]
        assert found["title"] == row.title, "python -m benchmarks.training writes other models today."
        assert found["sizes"] == json.loads(json.dumps(row.sizes))
    assert committed["scaling"].keys() == scaling.VARIANTS.keys()
    for name, (changed, change) in scaling.VARIANTS.items():
        found = committed["scaling"][name]
        assert (found["changed"], found["sizes"]) == (changed, scaling.BASE | change)
    assert all(len(change) == 1 for _, change in scaling.VARIANTS.values() if change)


def test_what_the_page_says_of_the_results_holds(committed: dict[str, Any]) -> None:
    models, grown = committed["models"], committed["scaling"]
    slow = {"ffjord": 5e-3, "tarflow": 4e-3}
    for name, model in models.items():
        rate = slow.get(name, 1e-3)
        assert model["settings"] == {"steps": 800, "batch_size": 64, "lr": rate, "ema": 0.99}
        assert model["settings"] == recipe(name, load_dataset("digits"))[1]
    assert models["realnvp"]["seconds"] < models["glow"]["seconds"]
    assert models["realnvp"]["parameters"] > models["glow"]["parameters"]
    for model in models.values():
        if not model["in_a_row"]:
            assert min(model["test_bits"]) > max(models["spline"]["test_bits"])
            assert model["seconds"] > models["spline"]["seconds"]
    assert min(models, key=lambda name: models[name]["parameters"]) == "ffjord"
    dearer = {name: model["sample_ms"] / model["step_ms"] for name, model in models.items()}
    assert max(dearer, key=lambda name: dearer[name]) == "maf"
    for change in ("layers", "batch"):
        assert 1.8 < grown[change]["gflops"] / grown["base"]["gflops"] <= 2
    for change in ("hidden", "side"):
        ratio = {key: grown[change][key] / grown["base"][key] for key in ("gflops", "step_ms", "memory_mb")}
        assert 1 < ratio["step_ms"] < ratio["gflops"]
        assert 1 < ratio["memory_mb"] < ratio["gflops"]
    assert 3 < grown["hidden"]["gflops"] / grown["base"]["gflops"] < 4
    assert grown["side"]["gflops"] / grown["base"]["gflops"] == pytest.approx(4, rel=0.05)


# --- the page ---------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function from results and parts to the soup of a page, and the warnings of its build."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    for name in ("benchmark_page", "training_curves", "training_costs"):
        sys.modules.pop(name, None)

    def build(results: dict[str, Any], *parts: str) -> tuple[BeautifulSoup, str]:
        return build_results_page(tmp_path, results, "training-costs", parts, "training_costs")

    return build


def cells(soup: BeautifulSoup, part: str) -> list[list[str]]:
    rows = soup.find(id=part).find_all("tr")
    return [[cell.get_text().replace("\xa0", " ") for cell in row.find_all(["th", "td"])] for row in rows]


def test_the_page_follows_from_the_results(page, committed: dict[str, Any]) -> None:
    changed = copy.deepcopy(committed)
    changed["models"]["maf"] |= {"parameters": 1234, "test_bits": [0.5, 0.5, 0.7], "seconds": 987.0}
    changed["scaling"]["side"]["memory_mb"] = 3.7 * changed["scaling"]["base"]["memory_mb"]
    changed["plan"] |= {"gflops_per_image": 1000.0, "steps": 3600, "batch_size": 10}
    soup, warnings = page({"training": changed}, "models", "curves", "sizes", "scaling", "plan", "machine")
    assert not warnings
    shown = cells(soup, "models")
    assert shown[1][:3] == ["MAF", "1,234", "987"], "The best model comes first."
    assert shown[1][5] == "0.567 ± 0.100"
    assert {row[0] for row in shown[1:]} == {row.title for row in training.ROWS.values()}
    assert "MAF" in soup.find("img")["alt"]
    assert soup.find("img")["src"].startswith("data:image/svg+xml;base64,")
    assert len(soup.find(id="sizes").find_all("li")) == len(training.ROWS)
    assert cells(soup, "scaling")[3][0::4] == ["32 × 32 pixels instead of 16 × 16", "× 3.7"]
    assert ["1", "10.0 hours"] in cells(soup, "plan")  # 10³·10⁹ operations for each of 36,000 images
    assert changed["machine"]["processor"] in soup.find(id="machine").get_text()


def test_a_gpu_is_shown_once_it_was_measured(page, tiny_throughput: dict[str, Any]) -> None:
    found = copy.deepcopy(tiny_throughput)
    found["machine"]["card"] = "NVIDIA H200"
    found["entries"]["float32, eager"] |= {"images_per_second": 4321.0, "share_of_peak": 0.123}
    soup, warnings = page({"throughput-nvidia-h200": found}, "throughput")
    assert not warnings
    assert "NVIDIA H200" in soup.find(id="throughput").get_text()
    rows = {row[0]: row[1:] for row in cells(soup, "throughput")}
    assert rows["float32, eager"][0::2] == ["4,321", "12.3 %"]
    assert rows["flowlib"][2] == "–"


def test_without_a_gpu_the_page_says_so(page) -> None:
    soup, warnings = page({}, "throughput")
    assert not warnings
    assert "No GPU has been measured yet" in soup.find(id="throughput").get_text()


def test_the_results_of_a_gpu_stand_below_those_of_a_core(page, committed: dict[str, Any]) -> None:
    other = copy.deepcopy(committed)
    other["machine"]["card"] = "NVIDIA H200"
    soup, _ = page({"training": committed, "training-nvidia-h200": other}, "models")
    assert [strong.get_text() for strong in soup.find_all("strong")] == ["One core", "NVIDIA H200"]


def test_what_is_missing_or_unknown_is_named(page) -> None:
    warnings = page({}, "models", "model")[1]
    assert "training.json is missing; python -m benchmarks.training writes it" in warnings
    assert "training-costs has no part 'model'; it has models, sizes" in warnings


def test_the_books_page_has_every_part() -> None:
    text = (ROOT / "book" / "training_costs.md").read_text("utf-8")
    parts = ["models", "machine", "curves", "sizes", "scaling", "throughput", "plan"]
    assert [rest.split()[0] for rest in text.split("```{training-costs} ")[1:]] == parts
