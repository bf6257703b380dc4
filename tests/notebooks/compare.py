"""How far a notebook's output may be from its reference: text with numbers, and figures."""

from __future__ import annotations

import base64
import io
import re
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

RELATIVE = 1e-3
# Spaces before a number belong to it: where a sign comes or goes, the columns shift by one.
NUMBER = re.compile(r"([ \t]*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")

# Root mean square of 4×4 box averages, on a scale of 0 to 255. Another processor or a relative
# change of the data by 1e-3 stays below 0.7 in the whole figure and below 10 in any 32×32 pixels;
# a changed title, colour or seed exceeds one of the two bounds.
WHOLE_FIGURE = 1.5
WORST_TILE = 12.0


def text_problem(reference: str, now: str) -> str | None:
    """Say where two texts differ, or return None if they agree.

    Whole numbers must be equal. Decimals may differ by one unit of the last printed place
    plus 1e-3 of their size. A line that opens with ✓ states a bound and must be equal.
    """
    pairs = zip_longest(reference.splitlines(), now.splitlines())
    for number, (old, new) in enumerate(pairs, 1):
        if old is None:
            return f"line {number} is new:\n  now:       {new}"
        if new is None:
            return f"line {number} is missing:\n  reference: {old}"
        if problem := _line_problem(old, new):
            return f"line {number}: {problem}\n  reference: {old}\n  now:       {new}"
    return None


def figure_problem(reference: str, now: str, save_to: Path) -> str | None:
    """Say how two base64 images differ, or return None; save differing ones side by side."""
    old, new = _image(reference), _image(now)
    if old.size == new.size:
        whole, tile = distance(old, new)
        if whole <= WHOLE_FIGURE and tile <= WORST_TILE:
            return None
        problem = (
            f"the figures differ by {whole:.1f} of 255 (allowed {WHOLE_FIGURE}), "
            f"and by {tile:.1f} in the worst place (allowed {WORST_TILE})"
        )
    else:
        problem = "the figure was {}×{} pixels and is {}×{}".format(*old.size, *new.size)
    _save_side_by_side(old, new, save_to)
    return f"{problem}\n  side by side: {save_to}"


def distance(old: Image.Image, new: Image.Image) -> tuple[float, float]:
    """Return the difference of two images of one size: over the whole, and in the worst tile."""
    difference = _averages(np.asarray(old, float) - np.asarray(new, float), 4)
    tiles = _averages(difference**2, 8).mean(axis=2)
    return float(np.sqrt((difference**2).mean())), float(np.sqrt(tiles.max()))


def _line_problem(old: str, new: str) -> str | None:
    # split with a group: texts at even places, numbers at odd ones
    olds, news = NUMBER.split(old), NUMBER.split(new)
    if old.startswith("✓") or olds[::2] != news[::2]:
        return None if old == new else "the text changed"
    for a, b in zip(olds[1::2], news[1::2], strict=True):
        units = [unit for unit in (_unit(a), _unit(b)) if unit is not None]
        if not units and int(a) != int(b):
            return f"{a.strip()} became {b.strip()}, and whole numbers must be equal"
        allowed = max(units, default=0.0) + RELATIVE * abs(float(a))
        if units and abs(float(a) - float(b)) > allowed * (1 + 1e-9):
            return f"{a.strip()} became {b.strip()}, which is more than {allowed:.2g} away"
    return None


def _unit(number: str) -> float | None:
    """One unit of the last printed place; 0 for “2.” and “1e-10”; None for a whole number."""
    mantissa, _, exponent = number.strip().lower().partition("e")
    if "." not in mantissa and not exponent:
        return None
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals else 0.0


def _image(data: str) -> Image.Image:
    """Decode an image; what is transparent shows the white of the page."""
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _averages(values: np.ndarray, size: int) -> np.ndarray:
    """Average over boxes of ``size`` by ``size``; zeros fill up the last row and column of boxes."""
    height, width, channels = values.shape
    padded = np.pad(values, ((0, -height % size), (0, -width % size), (0, 0)))
    rows, columns = padded.shape[0] // size, padded.shape[1] // size
    return padded.reshape(rows, size, columns, size, channels).mean(axis=(1, 3))


def _save_side_by_side(old: Image.Image, new: Image.Image, path: Path) -> None:
    gap, top = 12, 20
    sheet = Image.new("RGB", (old.width + gap + new.width, top + max(old.height, new.height)), "lightgrey")
    for image, left, name in ((old, 0, "reference"), (new, old.width + gap, "now")):
        sheet.paste(image, (left, top))
        ImageDraw.Draw(sheet).text((left + 4, 4), name, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
