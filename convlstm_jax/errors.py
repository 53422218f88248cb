"""The one exception that stands for a mistake of the user's."""


class UserError(ValueError):
    """A mistake in a config, a flag or the data, told in one sentence.

    The message names the field or file, the value found and what is allowed. The
    command line prints it without a traceback and exits with code 2; library callers
    may catch it as a plain `ValueError`.
    """
