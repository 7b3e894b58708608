"""Suite `grounding`: KAFT's questions with all four kinds of context (METHODS.md, section 3).

Example (a counterfactual context of a question whose true answer is Paris):

    prompt:      question: Where was Ann born? context: Ann was born in Lyon.
    prediction:  Lyon (from context)

Data: KAFT records, as `kaft-promot augment` writes them; best of questions that no arm was trained
on. The records name the base model whose closed-book answers they hold.
"""

from kaft_promot.evaluation import suites
from kaft_promot.evaluation.kaft_examples import load, task_of_kind

suites.register(
    suites.Suite(
        name="grounding",
        description="Does the model follow a context that has the answer, ignore one that has not, "
        "and still know what it knew?",
        tasks=tuple(
            task_of_kind(kind) for kind in ("relevant", "counterfactual", "irrelevant", "empty")
        ),
        load=load,
    )
)
