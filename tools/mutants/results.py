"""What was found in each lecture, and which of the survivors make no difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tools.setup_cell import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
EQUIVALENTS = Path(__file__).with_name("equivalents.yml")


def equivalents(file: Path | None = None) -> dict[tuple[str, str, str], str]:
    """The mutants that make no difference, by lecture, tag and change, with the reason."""
    entries = yaml.safe_load((file or EQUIVALENTS).read_text("utf-8")) or []
    return {(entry["lecture"], entry["tag"], entry["change"]): entry["why"] for entry in entries}


def load(file: Path | None = None) -> dict[str, dict[str, Any]]:
    """The results of every lecture that was judged."""
    file = file or RESULTS
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def merge(lecture: str, found: dict[str, Any], file: Path = RESULTS) -> None:
    """Write down one lecture's results beside those of the others."""
    merged = dict(sorted((load(file) | {lecture: found}).items()))
    file.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n", "utf-8")


def divided(
    lecture: str, found: dict[str, Any], harmless: dict[tuple[str, str, str], str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float | None]:
    """The survivors, the equivalents among them apart, and the share that died of all others."""
    same = [one for one in found["survivors"] if (lecture, one["tag"], one["change"]) in harmless]
    alive = [one for one in found["survivors"] if one not in same]
    others = found["run"] - len(same)
    return alive, same, found["killed"] / others if others else None
