"""The error of a data file."""

from ngem_tutorial._files import RemediableError

__all__ = ["DatasetError"]


class DatasetError(RemediableError):
    """A data file is missing, unreadable or not what it should be; the message says what to do."""
