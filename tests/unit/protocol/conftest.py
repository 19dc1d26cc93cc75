"""Strategies for messages, built from the message classes themselves."""

import dataclasses

import pytest
from hypothesis import strategies as st

from melissa_gen.protocol import wire

NUMBERS = {
    "u16": st.integers(0, 2**16 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "f64": st.floats(allow_nan=False),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
INDEX = st.integers(0, 2**32 - 1)
BLOCK = st.integers(1, 4).flatmap(
    lambda n: st.builds(
        wire.Block,
        NUMBERS["u16"],
        st.tuples(*[INDEX] * n),
        st.tuples(*[INDEX] * n),
    )
)
FIELD = st.builds(
    wire.StudyField, TEXT, st.sampled_from(wire.DTYPES), st.lists(INDEX, max_size=4).map(tuple)
)
PARAMETER = st.builds(wire.StudyParameter, TEXT, st.sampled_from(wire.PARAMETER_TYPES))
LAYOUTS = NUMBERS | {
    "str": TEXT,
    "[str]": st.lists(TEXT, max_size=5).map(tuple),
    "[u16]": st.lists(NUMBERS["u16"], max_size=20).map(tuple),
    "[f64]": st.lists(NUMBERS["f64"], max_size=20).map(tuple),
    "[f64]?": st.lists(NUMBERS["f64"], max_size=5).map(tuple),
    "bytes": st.binary(max_size=30),
    "block": BLOCK,
    "[block]": st.lists(BLOCK, max_size=16).map(tuple),
    "[parameter]": st.lists(PARAMETER, max_size=5).map(tuple),
    "[field]": st.lists(FIELD, max_size=16).map(tuple),
}


def messages_of(cls):
    names = [field.name for field in dataclasses.fields(cls)]
    values = {name: LAYOUTS[kind] for name, kind in zip(names, cls.LAYOUT, strict=True)}
    return st.builds(cls, **values)


MESSAGES = st.one_of([messages_of(cls) for cls in wire.MESSAGES])


@pytest.fixture(scope="session")
def messages():
    return MESSAGES
