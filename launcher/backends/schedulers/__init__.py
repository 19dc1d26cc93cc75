"""Adapters for batch schedulers, which render job scripts and commands and parse the states of jobs.

The adapters are pure and run no commands; the batch back end does. They may import `melissa_gen.study` and the
interface of the back ends.
"""
