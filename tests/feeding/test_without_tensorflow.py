"""Everything behind the SeqIO door runs where TensorFlow is not installed."""

import os
import subprocess
import sys

from kaft_promot.feeding import save_batches

PROGRAM = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_text", "seqio"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
from kaft_promot.feeding import DatasetConfig, load_vocabulary, train_iterator

for saved in sys.argv[1:]:
    cfg = DatasetConfig(mixture_or_task_name="both", batch_size=8, saved=saved,
                        task_feature_lengths={"inputs": 24, "targets": 10}, pack=True)
    print(int(next(train_iterator(cfg))["encoder_input_tokens"].sum()))
print(load_vocabulary("bytes").encode("a"), "tensorflow" in sys.modules)
"""


def test_saved_tokens_and_batches_train_without_tensorflow(mixture, tmp_path) -> None:
    cfg = mixture(pack=True)
    batches = str(tmp_path / "batches.npz")
    save_batches(cfg, batches, 2)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, cfg.saved, batches],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    tokens, saved, last = done.stdout.splitlines()
    assert tokens == saved and int(tokens) > 0
    assert last == "[100] False"
    assert done.stderr == ""
