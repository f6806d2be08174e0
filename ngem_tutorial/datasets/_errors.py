"""The error of a data file."""


class DatasetError(RuntimeError):
    """A data file is missing, unreadable or not what it should be; the message says what to do."""
