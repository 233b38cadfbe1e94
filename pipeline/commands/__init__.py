"""The commands as plain functions: typed arguments with defaults in, frozen records out, no terminal needed.

`hwnas` and the command line call the same functions; start with `files.profile` and `runs.search`.
"""
