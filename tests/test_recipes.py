"""The recipe for several devices, on several: the page runs it on those that there are."""

from __future__ import annotations

import os
import subprocess
import sys

import jupytext
import notebooks


def test_the_gradient_is_the_same_on_four_devices() -> None:
    page = jupytext.read(notebooks.ROOT / "book/practice/recipes.md", fmt="md:myst")
    cells = [cell.source for cell in page.cells if cell.cell_type == "code"]
    code = [cell for cell in cells[:4] if "ngem_tutorial" in cell or "def " in cell]
    plain = next(cell for cell in cells if "def predict(" in cell)
    code += [plain.partition("initial = ")[0], next(cell for cell in cells if "Mesh(" in cell)]
    code += ["assert len(shared[0][0].sharding.device_set) == 4"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        cwd=notebooks.ROOT, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("same gradient as on one device: True\n")
