"""One file per command: a function of the file's name, whose signature is the flags and whose docstring is the help.

It calls and prints, without logic of its own. A `defaults(argv)` beside it gives defaults that depend on other flags.
"""
