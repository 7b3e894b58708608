"""Suite `mini_in_context`: what mini can do from a few solved examples in its prompt.

Example (two shots of the task `first`, output format `word`):

    prompt:      first: cat dog sun = cat ; first: red hen = red ; first: bus tea =
    prediction:  bus

It needs no data. `in_context_suite.shots = (0, 1, 2, 4)` chooses the numbers of shots (default 2),
`in_context_suite.queries = 400` how many queries each task has (default 100),
`in_context_suite.split = 'test'` which ones (default `validation`, to choose settings on). The
tasks are those of `tasks/mini_fewshot.py`; no arm is tuned on them.
"""

from kaft_promot.evaluation import in_context, suites

suites.register(
    suites.Suite(
        name="mini_in_context",
        description="Can the model still do tasks that it is only shown in its prompt, each in the "
        "format that its prompt shows?",
        tasks=in_context.tasks(),
        load=in_context.load,
        needs_data=False,
    )
)
