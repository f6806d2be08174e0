"""The paper's numbers beside ours: the experiments by name, their comparison, the command."""

from ngem_tutorial import _pandas  # noqa: F401  # first, for its error
