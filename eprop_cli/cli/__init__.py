"""The commands: arguments in, functions called."""
