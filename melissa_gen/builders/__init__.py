"""Builds objects from sections of the study file: prior, surrogate, and the memory promise."""
