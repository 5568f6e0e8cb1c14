"""The one exception of the command line."""


class UsageError(ValueError):
    """What the user asked for is not allowed; ends in exit code 2."""


__all__ = ["UsageError"]
