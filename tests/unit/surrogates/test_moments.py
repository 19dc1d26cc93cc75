import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.surrogates import ChannelMoments, FieldScale

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.lists(st.integers(1, 7), min_size=1, max_size=6), st.floats(0, 1e6))
def test_merged_moments_equal_the_moments_of_all_values(seed, lengths, offset):
    random = np.random.default_rng(seed)
    parts = [
        offset + random.normal(size=(n, 3, 5)) * 10.0 ** random.integers(-3, 3) for n in lengths
    ]
    found = ChannelMoments.empty(3).merged(ChannelMoments.of(part) for part in parts)
    values = np.concatenate(parts)
    np.testing.assert_allclose(found.mean, values.mean(axis=(0, 2)), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.std, values.std(axis=(0, 2)), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.low, values.min(axis=(0, 2)))
    np.testing.assert_array_equal(found.high, values.max(axis=(0, 2)))
    assert found.count == values.shape[0] * 5


def test_large_fields_are_measured_in_parts():
    values = np.random.default_rng(0).normal(300.0, 1e-2, (2, 2, 400_000)).astype(np.float32)
    found = ChannelMoments.of(values)
    np.testing.assert_allclose(found.std, values.astype(np.float64).std(axis=(0, 2)), rtol=1e-9)


@pytest.mark.parametrize(
    ("channels", "axes"), [("first", (0, 2, 3)), ("last", (0, 1, 2)), (None, None)]
)
def test_channels_have_moments_of_their_own(channels, axes):
    values = np.random.default_rng(0).normal(size=(4, 2, 5, 3)) + np.arange(3)
    scale = FieldScale(channels=channels)
    found = scale.moments(values, (2, 5, 3))
    np.testing.assert_allclose(found.mean, np.atleast_1d(values.mean(axis=axes)))
    assert scale.count((2, 5, 3)) == len(found.mean)


@pytest.mark.parametrize(
    ("kind", "center", "width"),
    [
        ("standard", 3.0, np.sqrt(8 / 3)),
        ("minmax", 3.0, 2.0),
        ("none", 0.0, 1.0),
        ("fixed", 7.0, 9.0),
    ],
)
def test_each_kind_of_scale_has_its_center_and_width(kind, center, width):
    scale = FieldScale(kind, mean=7.0, std=9.0) if kind == "fixed" else FieldScale(kind)
    moments = scale.moments(np.array([[1.0, 3.0, 5.0]]), (3,))
    found = [one.item() for one in scale.center_and_width(moments)]
    assert found == pytest.approx([center, width])


def test_a_field_without_variation_gets_a_width_that_can_be_divided_by():
    for value, width in ((0.0, 1.0), (300.0, 3e-4)):
        scale = FieldScale()
        center, found = scale.center_and_width(scale.moments(np.full((2, 4), value), (4,)))
        assert (center.item(), found.item()) == pytest.approx((value, width))
