"""Units of parameters and fields, and durations: common ones are accepted without loading all definitions of pint."""

import subprocess
import sys

import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from melissa_gen.units import COMMON, SECONDS, Duration, Unit

REGISTRY = pint.UnitRegistry()
UNIT, DURATION = TypeAdapter(Unit), TypeAdapter(Duration)


def test_common_units_are_those_of_pint():
    for name in COMMON:
        REGISTRY.Unit(name)
    for name, seconds in SECONDS.items():
        assert REGISTRY.Quantity(1.0, name).to("second").magnitude == pytest.approx(seconds)
        assert DURATION.validate_python(f"3 {name}") == pytest.approx(3 * seconds)


powers = st.tuples(st.sampled_from(sorted(COMMON)), st.sampled_from(["", "^2", "**3", "^-1"]))


@given(st.lists(powers.map("".join), min_size=1, max_size=4), st.sampled_from("/*"))
def test_products_and_quotients_of_common_units_are_units_of_pint(factors, operator):
    text = operator.join(factors)
    assert UNIT.validate_python(text) == text
    REGISTRY.Unit(text)


@pytest.mark.parametrize("text", ["furlong", "m/s", "kg m", "1/s", "m^2/s^2", "", "1"])
def test_legal_units(text):
    assert UNIT.validate_python(text) == text


@pytest.mark.parametrize("text", ["meterz", "m/", "m^", "m s K q", "*m", "m***2"])
def test_illegal_units(text):
    with pytest.raises(ValidationError, match="is not a known unit"):
        UNIT.validate_python(text)


def test_a_study_with_common_units_loads_no_definitions():
    code = (
        "import sys; from pydantic import TypeAdapter; from melissa_gen.units import Duration, Unit; "
        "TypeAdapter(Unit).validate_python('kg/m^3'); TypeAdapter(Duration).validate_python('60 s'); "
        "sys.exit('pint' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
