"""Batch schedulers: each renders job scripts, submits them and reads the states of jobs."""
