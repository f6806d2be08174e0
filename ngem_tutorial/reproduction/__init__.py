"""The paper's numbers beside ours: the experiments by name, their comparison, the command."""
