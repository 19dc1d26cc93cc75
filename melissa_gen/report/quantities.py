"""Formatting of numbers in the live view and the report. An unknown number is an en dash."""

import math

__all__ = ["ERRORS", "UNKNOWN", "count", "duration", "megabytes", "number", "rate", "share"]

UNKNOWN = "–"
ERRORS = {
    "nrmse": "normalized root mean square error (NRMSE)",
    "rmse": "root mean square error on the scale of the fields (RMSE)",
}
"""What each name of an error means."""
MINUTE, HOUR = 60, 3600


def count(value: float) -> str:
    """Formats an integer: 12,345."""
    return f"{value:,.0f}" if math.isfinite(value) else UNKNOWN


def number(value: float, digits: int = 3) -> str:
    """Formats a real number with `digits` significant digits: 0.00123, 1.2e-07."""
    return f"{value:.{digits}g}" if math.isfinite(value) else UNKNOWN


def rate(value: float) -> str:
    """Formats a rate with fewer decimals for larger values: 0.42, 8.1, 1,204."""
    if not math.isfinite(value):
        return UNKNOWN
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 1 else 2
    return f"{value:,.{digits}f}"


def share(value: float) -> str:
    """Formats a fraction in [0, 1] as a percentage: 62 %."""
    return f"{100 * value:.0f} %" if math.isfinite(value) else UNKNOWN


def duration(seconds: float) -> str:
    """Formats a duration in seconds: 4.2 s, 3 min 20 s, 2 h 05 min."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02d} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE:02d} min"


def megabytes(value: float) -> str:
    """Formats an amount of memory in megabytes: 512 MB, 1.5 GB, 8.2 TB."""
    for unit in ("MB", "GB"):
        if not math.isfinite(value):
            return UNKNOWN
        if value < 1000:
            return f"{rate(value)} {unit}"
        value /= 1000
    return f"{rate(value)} TB"
