"""The report page's section that shows what arms answer on the target and on in-context tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from html import escape

from kaft_promot.evaluation import page
from kaft_promot.evaluation.formatting import percent
from kaft_promot.evaluation.output_share import format_of
from kaft_promot.evaluation.page import Section
from kaft_promot.evaluation.retention import (
    IN_CONTEXT_SUITE,
    TARGET,
    TARGET_SUITE,
    Scores,
    in_format,
    main_score,
    score_name,
)
from kaft_promot.evaluation.rows import Row

_PROMPT_LIMIT = 420  # characters of a prompt that are shown: its end, where the query stands


def section(rows: Sequence[Row], table: Scores, target: str) -> Section:
    """One query of every task with every arm's answer.

    Args:
      rows: of one seed.
      table: their scores.
      target: name of the target task.
    """
    predicate = format_of(target)
    cards = []
    for of_arm in choose(rows):
        row = next(iter(of_arm.values()))
        label = table.labels.get(row["task"], "target task")
        outputs = "".join(
            f'<tr{tone}><th scope="row">{escape(arm)}</th>'
            f"<td>{verdict} {page.output(of_arm[arm]['prediction'])}{tag}</td></tr>"
            for arm in table.arms
            for tone, verdict in [_verdict(of_arm[arm], table)]
            for tag in [_tag(of_arm[arm], table, in_format(of_arm[arm], predicate))]
        )
        prompt = row.get("prompt", "")
        if len(prompt) > _PROMPT_LIMIT:
            prompt = f"… {prompt[-_PROMPT_LIMIT:]}"
        cards.append(
            f'<article class="card"><h4>{escape(label)}</h4>'
            f'<pre class="prompt">{escape(prompt)}</pre>'
            f'<p class="fact">target: <b>{escape(row["target"])}</b></p>'
            f'<table class="outputs"><tbody>{outputs}</tbody></table></article>'
        )
    note = (
        '<p class="note">One query of every task, the same for all arms, chosen by a hash of the '
        "question without a look at any output. <i>format</i> marks outputs that are in the "
        "target task's format where the task asks for another one.</p>"
    )
    html = f'{note}<div class="cards">{"".join(cards)}</div>'
    return Section("retention-examples", "What the arms answer", html)


def _verdict(row: Row, table: Scores) -> tuple[str, str]:
    """The line's class and its mark: ✓ or ✗, or the score where that is not right or wrong."""
    score = main_score(row)
    if table.graded(TARGET if row["suite"] == TARGET_SUITE else row["task"]):
        return "", f'<span class="verdict">{escape(score_name(row))} {percent(score)} %</span>'
    return f' class="{"right" if score else "wrong"}"', page.verdict(bool(score))


def _tag(row: Row, table: Scores, formatted: bool) -> str:
    other = row["suite"] == IN_CONTEXT_SUITE and not table.tasks[row["task"]]
    return ' <span class="tag">(format)</span>' if other and formatted else ""


def choose(rows: Sequence[Row]) -> list[dict[str, Row]]:
    """One example of the target and of every in-context task, chosen without a look at any output.

    Args:
      rows: of one seed.

    Returns:
      arm -> row, for the example of each task whose question has the smallest hash among those that
      all arms have; in-context tasks by name, the target task last.
    """
    used = [row for row in rows if row.get("suite") in (TARGET_SUITE, IN_CONTEXT_SUITE)]
    arms = {row["arm"] for row in used}
    by_example: dict[str, dict[str, Row]] = {}
    for row in used:
        by_example.setdefault(row["example_id"], {})[row["arm"]] = row
    best: dict[tuple[bool, str], tuple[tuple[bytes, str], dict[str, Row]]] = {}
    for example, of_arm in by_example.items():
        if of_arm.keys() == arms:
            row = next(iter(of_arm.values()))
            task = (row["suite"] == TARGET_SUITE, row["task"])
            order = (hashlib.sha256(row["question_id"].encode()).digest(), example)
            if task not in best or order < best[task][0]:
                best[task] = (order, of_arm)
    return [best[task][1] for task in sorted(best)]
