"""One file per command: a function named like the file, whose signature defines the flags and whose docstring the help.

The function only calls and prints. A `defaults(argv)` beside it gives defaults that depend on other flags.
"""
