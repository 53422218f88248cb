"""The command line: flags, configs and a module for each mode."""
