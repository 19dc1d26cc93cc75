"""Records of a run as a table: a pandas data frame where pandas is installed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["flat", "table"]


def table(records: Sequence[Mapping[str, Any]]) -> Any:
    """Returns records as a `pandas.DataFrame`, or as a list where pandas is not installed.

    Args:
        records: Mappings of JSON values.

    Returns:
        A data frame with one row for each record and one column for each key; nested keys are joined by dots, such as
        `parameters.east` or `nrmse.mean`, and lists stay lists. Without pandas, a list of mappings with the same keys.
    """
    rows = [dict(flat(record)) for record in records]
    try:
        import pandas as pd
    except ImportError:
        return rows
    return pd.DataFrame.from_records(rows)


def flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested mappings, each with its keys joined by dots."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
