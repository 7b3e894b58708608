"""Sample rows of a true/false target and of in-context tasks, for tests of retention."""

from kaft_promot.evaluation.output_share import one_of, register_format

CLAIMS = "retention_claims"
register_format(CLAIMS, one_of("True", "False"))


def target_row(arm, n, right=True, **fields):
    answer = "True" if right else "False"
    return {
        "suite": "target",
        "task": CLAIMS,
        "arm": arm,
        "example_id": f"{CLAIMS}:{n}",
        "question_id": f"fact {n // 2}",
        "prompt": f"Claim {n}. Is it true or false? answer:",
        "prediction": answer,
        "answer": answer,
        "target": "True",
        "scores": {"exact_match": float(right)},
        **fields,
    }


def task_row(arm, task, n, answer, target="cat", **fields):
    return {
        "suite": "in_context",
        "task": f"{task}_2shot",
        "in_context_task": task,
        "shots": 2,
        "output_format": "word",
        "arm": arm,
        "example_id": f"{task}:{n}",
        "question_id": f"{task}:{n}",
        "prompt": f"{task} {n}",
        "prediction": answer,
        "answer": answer,
        "target": target,
        "scores": {"exact_match": float(answer == target)},
        **fields,
    }


def task_rows(arm, task, answers, target="cat"):
    return [task_row(arm, task, n, answer, target) for n, answer in enumerate(answers)]
