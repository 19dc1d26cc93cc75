"""Diffusion processes, and the small networks that adaptive samplers train."""
