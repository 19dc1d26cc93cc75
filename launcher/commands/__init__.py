"""The commands of `melissa-gen`, one module each.

`cli` and `melissa_gen.api` call them. They may import all of `melissa_gen`.
"""
