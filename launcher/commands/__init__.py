"""The commands of `melissa-gen`, one module each; `cli` calls them."""
