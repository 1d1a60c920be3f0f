"""How verdicts, intervals and tables are written."""

from __future__ import annotations

import math
import re

import pandas as pd

from rec_utils.claims import Verdict
from rec_utils.stats import Interval


def status(verdict: Verdict) -> str:
    """The status, marked if it is fragile."""
    return f"{verdict.status} (fragile)" if verdict.fragile else verdict.status


def value(verdict: Verdict) -> str:
    """Value and interval with two digits of the interval's width, such as "+0.65 [+0.40, +0.90] %"."""
    if verdict.value is None:
        return ""
    text = interval(verdict.value, verdict.low, verdict.high, verdict.null)
    return with_unit(text, verdict.unit)


def with_unit(text: str, unit: str) -> str:
    """A number and its unit, which may be empty."""
    return f"{text} {unit}".strip()


def band(low: float, high: float) -> str:
    """A range, one end of which may be infinite."""
    if math.isinf(high):
        return f"≥ {low:g}"
    return f"≤ {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"


def interval(value: float, low: float, high: float, null: float | None = None) -> str:
    """Two digits of the half-width, and more where a bound would else look as if it were the null."""
    sign = "+" if null == 0 else ""
    digits = max(0, 1 - math.floor(math.log10((high - low) / 2))) if high > low else 3
    while digits < 6 and any(bound != null and round(bound, digits) == null for bound in (low, high)):
        digits += 1
    return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def number(value: float | Interval) -> str:
    """A number with four digits, a count, or an interval."""
    if isinstance(value, Interval):
        return interval(value.value, value.low, value.high)
    return f"{value}" if isinstance(value, int) else f"{value:.4g}"


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table; no cell can hold HTML, a picture or a link that runs code."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    lines = (" | ".join(inert(str(cell)).replace("|", r"\|") for cell in row) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def inert(text: str) -> str:
    """Markdown on one line without HTML and pictures, and with links to the web and to notebooks only."""
    text = re.sub(r"\s*[\r\n]\s*", " ", text).strip()
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    text = re.sub(r"!(?=\[)", r"\!", text)
    return re.sub(r"\](?=\((?!https?://|notebooks/\w+\.ipynb\)))", r"\]", text)
