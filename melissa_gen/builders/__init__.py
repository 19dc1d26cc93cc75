"""Builds objects from the study file: prior, sampler, surrogate, data set writer, and memory limits.

Launcher and server use this package. It may import `study`, `sampling`, `surrogates`, `reservoir` and `dataset`. It is
the only place that translates sections of a study to arguments of those packages, which do not import `study`.
"""
