"""Decodes and scores with mini on meshes (`DATA,FSDP,TENSOR ...`); prints what each gives."""

import json
import sys

import numpy as np

from kaft_promot.decoding import Predictor
from kaft_promot.infer import load_predictor
from kaft_promot.scale import MeshConfig
from kaft_promot.scale.mesh import mesh_of

WORDS = ("Paris", "Goethe", "Ada Lovelace", "Kyoto", "the Nile", "Mozart", "Brazil", "Marie Curie")
# Eleven: no number of devices divides them.
PROMPTS = [f"question: where was {w} born?" for w in WORDS] + [
    "in: red blue\nout: blue red\nin: green white\nout:",
    "question: what is the capital of France? context: Paris is the capital of France.",
    "question: who wrote Faust? context: Faust is a play by Johann Wolfgang von Goethe.",
]
METHODS = {
    "greedy": {},
    "beam": {"num_beams": 3},
    "sample": {"temperature": 0.7, "top_k": 20, "seed": 3},
}

if __name__ == "__main__":
    report = {}
    for sizes in sys.argv[1:]:
        data, fsdp, tensor = (int(size) for size in sizes.split(","))
        mesh_config = MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
        found = {}
        for method, options in METHODS.items():
            predictor = load_predictor(
                "mini",
                method=method,
                max_decode_length=8,
                batch_size=4,
                mesh_config=mesh_config,
                **options,
            )
            found[method] = predictor.generate_tokens(PROMPTS)
        scores = predictor.score(PROMPTS, ["Paris", "Weimar, Germany", "x"] * 3 + ["a", "b"])
        found["score"] = np.asarray(scores).tolist()
        kernel = predictor.params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
        found["kernel"] = list(kernel.addressable_shards[0].data.shape)
        found["devices"] = len(kernel.sharding.device_set)
        # A run's own parameters stay where they lie.
        again = Predictor(
            predictor.config, predictor.params, predictor.vocabulary, max_decode_length=8
        )
        found["stays_on"] = ",".join(str(size) for size in mesh_of(again.params).shape.values())
        report[sizes] = found
    print(json.dumps(report))
