"""What a person sees of a run: the live view, TensorBoard, the HTML report and the comparison of several runs.

Modules here read a run directory, or the events of a run, as plain data; they do not know the server or its objects.
They may import `melissa_gen.run_dir` and `melissa_gen.errors`. Import from the module that holds what you need, so that
a process that only shows the live view loads no plotting: `live` (the terminal), `tensorboard`, `html` (the report) and
`comparison`.
"""
