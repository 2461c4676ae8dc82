"""RunReport: what came of a run over a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tl_jacobian.results import words
from tl_jacobian.results.base import Value
from tl_jacobian.results.panels import Cell, Panel, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, kw_only=True)
class RunReport(Value):
    """What came of a run.

    Attributes:
        out: its folder.
        n_prompts: of the corpus.
        n_resumed: how many of them were done before.
        n_errors: how many have an error in place of a result.
        seconds: that this run took.
    """

    out: Path
    n_prompts: int
    n_resumed: int
    n_errors: int
    seconds: float

    def __post_init__(self) -> None:
        self._set("out", Path(self.out))

    def to_dataframe(self) -> pd.DataFrame:
        """One row of its fields, the folder as text."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        numbers = {name: [getattr(self, name)] for name in ("n_prompts", "n_resumed", "n_errors", "seconds")}
        return pd.DataFrame({"out": [str(self.out)], **numbers})

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The numbers as a row of a table."""
        numbers = (str(self.n_prompts), str(self.n_resumed), str(self.n_errors), words.number(self.seconds))
        table = Table(
            title="run over a corpus",
            detail=str(self.out),
            header=("prompts", "done before", "errors", "seconds"),
            rows=(tuple(map(Cell, numbers)),),
            numbers=(0, 1, 2, 3),
        )
        return (table,)
