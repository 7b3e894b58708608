"""The counts of one run of `augment`: nothing is lost in silence."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run read, wrote and refused; `summary.json` holds it.

    Attributes:
      settings: the run's settings.
      rows_read: rows of the inputs that are not blank. `rows_read = examples + rejected rows`.
      examples: rows that gave an example.
      rejected_rows: reason -> rows that gave none.
      rejected_answers: reason -> rows of the file of parametric answers that hold no answer.
      written: context kind -> records written.
      irrelevant_kinds: `annotated` or `random` -> irrelevant records written.
      proposers: proposer -> counterfactual records written.
      rejected_records: `{kind}/{reason}` -> records that could not be made.
      not_applicable: `{kind}/{reason}` -> records that make no sense for their example.
        `examples * wanted kinds = written + rejected records + not applicable`.
    """

    settings: dict[str, Any]
    rows_read: int
    examples: int
    rejected_rows: dict[str, int]
    rejected_answers: dict[str, int]
    written: dict[str, int]
    irrelevant_kinds: dict[str, int]
    proposers: dict[str, int]
    rejected_records: dict[str, int]
    not_applicable: dict[str, int]

    @property
    def records(self) -> int:
        """The number of records written."""
        return sum(self.written.values())

    def table(self) -> str:
        """The counts as lines for people."""
        lines = [
            f"rows read {self.rows_read:,} = examples {self.examples:,}"
            f" + rejected {sum(self.rejected_rows.values()):,}"
        ]
        lines += [f"  rejected  {n:>9,}  {name}" for name, n in self.rejected_rows.items()]
        lines += [f"  bad answer{n:>9,}  {name}" for name, n in self.rejected_answers.items()]
        asked = self.examples * len(self.settings["kinds"])
        lines.append(
            f"records asked {asked:,} = written {self.records:,}"
            f" + rejected {sum(self.rejected_records.values()):,}"
            f" + not applicable {sum(self.not_applicable.values()):,}"
        )
        lines += [f"  written   {n:>9,}  {name}" for name, n in self.written.items()]
        lines += [
            f"            {n:>9,}    irrelevant: {k}" for k, n in self.irrelevant_kinds.items()
        ]
        lines += [f"            {n:>9,}    proposer: {k}" for k, n in self.proposers.items()]
        lines += [f"  rejected  {n:>9,}  {name}" for name, n in self.rejected_records.items()]
        lines += [f"  n/a       {n:>9,}  {name}" for name, n in self.not_applicable.items()]
        return "\n".join(lines)
