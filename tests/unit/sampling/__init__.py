"""Tests of `melissa_gen.sampling`."""
