"""Converts records of a run to a table: a pandas data frame if pandas is installed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["flat", "table"]


def table(records: Sequence[Mapping[str, Any]]) -> Any:
    """Converts records to a `pandas.DataFrame`, or to a list if pandas is not installed.

    Args:
        records: Mappings of JSON values.

    Returns:
        A data frame with one row for each record and one column for each key. Nested keys are joined by dots, such as
        `parameters.east` or `nrmse.mean`; lists remain lists. Without pandas, a list of mappings with the same keys.
    """
    rows = [dict(flat(record)) for record in records]
    try:
        import pandas as pd
    except ImportError:
        return rows
    return pd.DataFrame.from_records(rows)


def flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested mappings with their dotted keys."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
