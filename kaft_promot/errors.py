"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A user's mistake, told in one line.

    The message names the file and line, the flag or the gin binding, and says what to do. The
    command line prints it as `error: ...` and exits with status 2, without a stack trace.
    """
