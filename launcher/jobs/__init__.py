"""The jobs of a study: a pure state machine with its events, and the main loop that runs it.

This package may import the back ends, `melissa_gen.protocol`, `melissa_gen.report`, `melissa_gen.run_dir` and
`melissa_gen.study`; `commands` imports it.
"""
