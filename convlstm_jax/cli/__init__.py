"""The command line: flags, configs and the modes train, evaluate, predict, describe."""
