"""The benchmarks: the harness at a tiny size, the committed results, and the page made of them."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup

from benchmarks import quality, speed
from benchmarks.families import FAMILIES, TINY, bare_networks, live_parameters
from benchmarks.loops import TINY_LOOPS, by_hand
from benchmarks.models import INVERSE, LIBRARIES, builders
from benchmarks.targets import TARGETS, Ahead, Target
from flowlib import fit
from flowlib.data import Checkerboard
from tests.book.conftest import ROOT, build_results_page

PARTS = ("targets", "chart", "train", "other_sizes", "trainings", "sample", "sizes", "quality", "machine")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What is committed."""
    folder = ROOT / "benchmarks" / "results"
    return {part: json.loads((folder / f"{part}.json").read_text("utf-8")) for part in ("speed", "quality")}


@pytest.fixture(autouse=True)
def threads():
    """The harness sets one thread; other tests get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def shape(value: Any) -> Any:
    """The keys and types of a result, down to the numbers."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return list
    return type(value)


# --- the harness ------------------------------------------------------------------------------


def test_speed_at_a_tiny_size(results: dict[str, Any]) -> None:
    measured = speed.run(TINY, libraries=["flowlib"], rounds=2, compiled=False, trainings=TINY_LOOPS)
    assert measured["families"].keys() == results["speed"]["families"].keys() == FAMILIES.keys()
    assert measured.keys() == results["speed"].keys(), "make benchmarks writes other fields today."
    assert measured["trainings"].keys() == results["speed"]["trainings"].keys()
    for training in measured["trainings"].values():
        assert training["entries"]["by hand"]["train"]["eager"]["ratio"] == 1
        assert training["entries"]["fit"]["train"]["eager"]["ms"] > 0
    for name, family in measured["families"].items():
        committed = results["speed"]["families"][name]
        assert family.keys() == committed.keys(), f"{name}: make benchmarks writes other fields today."
        entry, then = family["entries"]["flowlib"], committed["entries"]["flowlib"]
        then = {key: value for key, value in then.items() if key != "compiled"}
        assert entry.keys() == then.keys()
        for what in ("train", "sample"):
            assert entry[what]["eager"]["ms"] > 0
            assert name == "planar" or entry[what]["eager"]["ratio"] > 0
            assert then[what]["eager"].keys() == {"ms", "ratio"}
        assert family["sizes"].keys() == committed["sizes"].keys()
        for size in family["sizes"].values():
            assert size["entries"]["flowlib"]["train"]["eager"]["ms"] > 0
    assert shape(measured["machine"]).items() >= {"processor": str, "threads": int}.items()


def test_a_ratio_is_the_median_over_rounds_of_paired_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(actions: dict, rounds: int) -> dict:
        own = {"bare": [1.0, 2.0, 4.0], "flowlib": [3.0, 4.0, 20.0]}
        return {key: own[key if isinstance(key, str) else key[0]] for key in actions}

    monkeypatch.setattr(speed, "interleave", times)
    entry = speed.run({"maf": TINY["maf"]}, ["flowlib"], 3, False, {})["families"]["maf"]["entries"]
    assert entry["flowlib"]["train"]["eager"] == {"ms": 4000.0, "ratio": 3.0}


def test_rounds_take_turns() -> None:
    order: list[str] = []
    actions = {name: (lambda name=name: order.append(name)) for name in "ab"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "LEAST", 1e-12)  # one repeat of each
        times = speed.interleave(actions, 3)
    assert "".join(order) == "aabb" + "ab" * 3
    assert all(len(taken) == 3 for taken in times.values())


@pytest.mark.parametrize("name", sorted(set(TINY) - {"planar"}))
def test_the_bare_networks_have_the_parameters_that_matter(name: str) -> None:
    """All of flowlib's but Glow's actnorms and convolutions, and no more."""
    torch.manual_seed(0)
    model, (module, networks) = builders("flowlib")[name](TINY[name]), bare_networks(name, TINY[name])
    x = torch.randn(256, *TINY[name].event_shape)
    live = live_parameters(model, model.log_density, x)
    bare = live_parameters(
        module,
        lambda _: sum(net(torch.randn(64, *shape)).flatten(1).square().sum(1) for net, shape in networks),
        x,
    )
    extra = 2 * (12**2 + 2 * 12) if name == "glow" else 0
    assert live == bare + extra


def test_live_parameters_leave_out_those_without_effect_and_change_nothing() -> None:
    model = torch.nn.Linear(4, 4)
    before = [p.clone() for p in model.parameters()]
    live = live_parameters(model, lambda x: model(x)[:, :2].square().sum(1), torch.randn(64, 4))
    assert live == 2 * 4 + 2
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_the_loop_by_hand_learns_as_fit_does() -> None:
    """The same recipe, up to the order of the points: the same length, and losses that agree on average."""
    data = 0.5 * torch.randn(512, 4)
    model, other = (speed.build(builders("flowlib")["realnvp"], TINY["realnvp"]) for _ in range(2))
    losses = by_hand(model, data, 64, 60)
    expected = fit(other.flow, data, steps=60, batch_size=64, lr=1e-3, progress=False).loss
    assert len(losses) == len(expected) == 60
    assert losses[0] - losses[-1] > 0.05
    assert sum(losses[-20:]) / 20 == pytest.approx(sum(expected[-20:]) / 20, abs=0.1)


def test_unequal_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="build them with equally many"):
        speed.check_sizes("maf", {"a": {"live": 100}, "b": {"live": 104}})


def test_quality_at_a_tiny_size(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "SEEDS", 1)
    task = quality.toy(Checkerboard(), "Checkerboard")
    runs = [quality.run({"checkerboard": task}, ["flowlib"], steps, families=["spline"]) for steps in (1, 40)]
    entries = [run["tasks"]["checkerboard"]["families"]["spline"]["entries"]["flowlib"] for run in runs]
    assert task.best is not None
    assert task.best < entries[1]["mean"] < entries[0]["mean"] - 0.1, "Forty steps learn something."
    committed = results["quality"]["tasks"]["checkerboard"]
    assert shape(runs[0]["tasks"]["checkerboard"]).keys() == committed.keys()
    assert entries[0].keys() == committed["families"]["spline"]["entries"]["flowlib"].keys()


def test_digits_are_judged_as_integers() -> None:
    """A standard normal on the logits, against the sum over dimensions written out for one image."""
    task = quality.handwritten()
    standard = torch.distributions.Normal(0.0, 1.0)
    model = quality.Model(torch.nn.Identity(), lambda z: standard.log_prob(z).sum(1), lambda n: None)
    y = 0.05 + 0.9 * ((task.test.sigmoid() - 0.05) / 0.9)
    log_pixel = standard.log_prob(task.test) + (0.9 / 17 / (y * (1 - y))).log()
    assert quality.test_result(model, task) == pytest.approx(float(-log_pixel.mean() / 0.6931472), rel=1e-4)


def test_the_extra_and_the_pins_are_the_libraries() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    lines = (ROOT / "benchmarks" / "requirements.txt").read_text("utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if not line.startswith("#")}
    assert pinned == set(extras["benchmarks"]) == set(LIBRARIES) - {"flowlib"}


# --- the results and the page -----------------------------------------------------------------


def test_every_library_is_in_the_results(results: dict[str, Any]) -> None:
    for part, measured in results.items():
        found = {
            library
            for group in ([measured] if part == "speed" else measured["tasks"].values())
            for family in group["families"].values()
            for library in family["entries"]
        }
        assert found - {INVERSE} == set(LIBRARIES), part
        assert set(LIBRARIES) == set(measured["machine"]["versions"]), part


def test_every_target_has_its_number_or_a_reason(results: dict[str, Any]) -> None:
    for target in TARGETS:
        verdict = target.verdict(results)
        assert verdict == "met" or target.why, f"{target.name}: {verdict}. Say why in benchmarks/targets.py."


def test_verdicts() -> None:
    target = Target("a", 2.0, "speed", ("x",))
    assert target.verdict({"speed": {"x": 2.0}}) == "met"
    assert target.verdict({"speed": {"x": 3.0}}) == "missed by 50 %"
    assert target.verdict({"speed": {"x": 2.01}}) == "missed by 0.5 %"
    assert target.verdict({"speed": {}}) == "not measured"


def test_ahead_means_at_every_size() -> None:
    def ratios(**of: float) -> dict[str, Any]:
        return {"entries": {who: {"train": {"eager": {"ratio": ratio}}} for who, ratio in of.items()}}

    family = ratios(flowlib=1.0, zuko=1.25, nflows=2.0) | {"sizes": {"wide": ratios(flowlib=1.5, zuko=2.0)}}
    loops = {"a": ratios(fit=0.9, **{"by hand": 1.0, "zuko": 1.0}), "b": ratios(fit=1.2, zuko=1.0)}
    results = {"speed": {"families": {"maf": family}, "trainings": loops}}
    assert Ahead("a", 1.0, "speed", ("families", "maf")).measured(results) == 0.8
    assert Ahead("a", 1.0, "speed", ("trainings",)).verdict(results) == "missed by 20 %"
    assert Ahead("a", 1.0, "speed", ("families", "glow")).verdict(results) == "not measured"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: dict[str, Any]):
    """A function that builds the page from changed results, and gives its soup and the warnings."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    sys.modules.pop("benchmark_page", None)

    def build(parts: tuple[str, ...] = PARTS) -> tuple[BeautifulSoup, str]:
        return build_results_page(tmp_path, results, "benchmarks", parts, "benchmark_page")

    return build


def test_the_page_follows_from_the_results(page, results: dict[str, Any], monkeypatch) -> None:
    for library in LIBRARIES[1:]:  # a build has none of them
        monkeypatch.setitem(sys.modules, library, None)
    entries = results["speed"]["families"]["maf"]["entries"]
    monkeypatch.setitem(entries["flowlib"]["train"]["eager"], "ratio", 98.7)
    monkeypatch.setitem(entries["flowlib"]["train"], "compiled", {"ms": 1.0, "ratio": 65.4})
    digits = results["quality"]["tasks"]["digits"]["families"]["maf"]["entries"]
    monkeypatch.setitem(digits["zuko"], "mean", None)
    soup, warnings = page()
    assert not warnings

    def cells(part: str) -> list[list[str]]:
        rows = soup.find(id=part).find_all("tr")
        return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in rows]

    shown = {row[0]: row[1:] for row in cells("targets")[1:]}
    assert list(shown) == [target.name for target in TARGETS]
    assert shown["MAF, training step"] == ["1.05", "98.7", "missed by 9300\xa0%"]
    reasons = [item.get_text() for item in soup.find(id="targets").find_all("li")]
    names = [name for reason in reasons for name in reason.partition(":")[0].split("; ")]
    assert names.count("MAF, training step") == 1
    assert "4,096" in soup.find(id="other-sizes").get_text()
    assert "by hand" in soup.find(id="trainings").get_text()
    header, *rows = cells("train")
    assert {row[0]: row[header.index("MAF")] for row in rows}["flowlib"].startswith("98.7\xa0/\xa065.4")
    assert {row[0]: row[header.index("MAF")] for row in rows}["FrEIA"] == "–"
    assert "MAF: flowlib 98.70" in soup.find("img")["alt"]
    assert soup.find("img")["src"].startswith("data:image/svg+xml;base64,")
    assert "diverged" in soup.find(id="quality").get_text()
    for task in results["quality"]["tasks"].values():
        assert task["title"] in soup.find(id="quality").get_text()
    assert results["speed"]["machine"]["processor"] in soup.find(id="machine").get_text()


def test_an_unknown_part_is_named(page) -> None:
    assert "benchmarks has no part 'speeds'; it has targets" in page(("speeds",))[1]


def test_the_books_page_has_every_part() -> None:
    text = (ROOT / "book" / "benchmarks.md").read_text("utf-8")
    assert {rest.split()[0] for rest in text.split("```{benchmarks} ")[1:]} == set(PARTS)
