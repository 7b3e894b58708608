"""RTE and translation into French together: the target of multi-task ProMoT in its paper.

| mixture | tasks, at equal rates |
| --- | --- |
| `rte_wmt_en_fr` | `rte` (`tasks/superglue.py`), `wmt_en_fr` (`tasks/wmt.py`) |

Each task has a prompt of its own (`PROMPT_TASKS = ('rte', 'wmt_en_fr')`, see
`recipes/promot_multitask.gin`; Wang et al., ICLR 2024, arXiv 2211.00635). The folders are bound as
for the tasks alone: `superglue_data.directory` and `wmt_data.directory`.
"""

import seqio

from kaft_promot.tasks import superglue as _superglue  # noqa: F401 (registers its tasks)
from kaft_promot.tasks import wmt as _wmt  # noqa: F401

seqio.MixtureRegistry.add("rte_wmt_en_fr", ["rte", "wmt_en_fr"], default_rate=1.0)
