"""Tables of the book: with a caption, for those who see the page and for those who hear it."""

from __future__ import annotations

import html
from typing import NamedTuple

import pandas as pd

__all__ = ["CaptionedTable"]


class CaptionedTable(NamedTuple):
    """A table that a notebook shows under its caption.

    Attributes:
        frame: what it shows.
        caption: what it is, in a sentence.
    """

    frame: pd.DataFrame
    caption: str

    def _repr_html_(self) -> str:
        """The caption is the table's own, so that a screen reader announces it."""
        caption = f'<caption style="caption-side: top">{html.escape(self.caption)}</caption>'
        return self.frame.to_html().replace("<thead>", f"{caption}<thead>", 1)

    def __repr__(self) -> str:
        """The same where there is no HTML, in a terminal for instance."""
        return f"{self.caption}\n{self.frame.to_string()}"
