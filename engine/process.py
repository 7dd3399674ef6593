"""Whether this process is a command, which ends with what it does, or a program that goes on after that."""

is_command = False  # `engine.cli.main` says so
