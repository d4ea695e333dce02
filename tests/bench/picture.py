"""Draws the README's picture of each side's requests a second, as SVG."""

from collections.abc import Iterator
from html import escape

from tests.bench import plan
from tests.bench.report import Summary

WIDTH, NAMES, BAR, GAP = 760, 190, 16, 10
FULL = WIDTH - NAMES - 130  # the longest bar, which leaves room for the figures

# These colours are readable on GitHub's white and on its near-black, for there is no background.
TEXT, OURS, PEER, FLOOR, SPREAD = "#7d8590", "#2f81f7", "#8c959f", "#b08800", "#d1242f"


def picture(results: list[Summary]) -> str:
    """Draw bars of the medians, with lines from the lowest to the highest round."""
    found = [
        [each for each in results if each.cell == cell.name] for cell in (plan.EXIST, plan.NEW)
    ]
    cells = [cell for cell in found if cell]  # --cells may have left one out
    most = max(each.rate_max for cell in cells for each in cell)
    parts: list[str] = []
    y = 0
    for cell in cells:
        y += 24
        parts.append(_text(0, y, f"{cell[0].cell}: requests a second", weight="bold"))
        y += 12
        for each in sorted(cell, key=lambda each: -each.rate):
            parts += _bar(y, each, FULL / most)
            y += BAR + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" '
        f'height="{y}" font-family="system-ui, sans-serif" font-size="13" role="img" '
        f'aria-label="Requests a second of each side">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bar(y: int, each: Summary, scale: float) -> Iterator[str]:
    colour = OURS if each.side in (plan.THIS, plan.THIS_SINGLE) else PEER
    colour = FLOOR if each.side in plan.FLOORS else colour
    middle = y + BAR / 2
    yield _text(NAMES - 10, middle + 4, each.side, anchor="end")
    width = each.rate * scale
    yield f'<rect x="{NAMES}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
    low, high = (NAMES + rate * scale for rate in (each.rate_min, each.rate_max))
    yield f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{SPREAD}" stroke-width="2"/>'
    yield _text(high + 8, middle + 4, f"{each.rate:,.0f}")


def _text(x: float, y: float, words: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{TEXT}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )
