"""Errors that are the user's to mend: the command line prints one line and exits with code 2."""


class UserError(ValueError):
    """A mistake in input, configuration or files: its one-line message says where and what to do.

    Raised for everything that a user can mend without reading our code. `maven_jax.__main__`
    prints it without a traceback and exits with code 2.
    """
