"""What a comparison of ProMoT's arms shows: table, results.json and report page, from its rows."""

from __future__ import annotations

PROMOT = "promot"  # the comparison's folder in the quickstart's
GROUNDING_ROWS = "rows.jsonl"
