"""The `cds` commands, one file each: NAME, HELP, `arguments(parser)` and `run(args) -> exit code`.

Modules here import only what the parser needs; the server itself is imported when a command runs, so that `cds --help`
answers at once.
"""
