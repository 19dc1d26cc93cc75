"""Adaptive samplers, one module each: they propose points where the surrogate has large errors."""
