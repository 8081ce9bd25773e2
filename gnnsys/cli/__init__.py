"""The command line: one file per verb, all built on the public Python functions."""
