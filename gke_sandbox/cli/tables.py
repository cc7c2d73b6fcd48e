"""Format tables and ages for stdout. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .console import one_line


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Return the rows as lines with aligned columns. An empty cell is shown as ``-``.

    `numbers`: align all columns except the first to the right.
    """
    cells = [[one_line(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = ["<", *((">" if numbers else "<") for _ in widths[1:])]
    return "".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        + "\n"
        for row in cells
    )


def age_text(seconds: float) -> str:
    """Return an age in its two largest units: ``2d3h``, ``1h5m``, ``12m``, ``40s``."""
    total = int(seconds)
    for unit, size, next_unit, next_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if total >= size:
            rest = total % size // next_size
            return f"{total // size}{unit}" + (f"{rest}{next_unit}" if rest else "")
    return f"{total}s"
