"""Question rows for tests of augmentation."""

OTHERS = [
    {"id": f"o{i}", "question": f"Where is Thing{i}?", "answers": [city], "answer_type": "place",
     "context": f"Thing{i} is in {city}.", "title": f"Thing{i}"}
    for i, city in enumerate(["Oslo", "Lima", "Cairo", "Quito", "Accra", "Minsk", "Delhi"])
]  # fmt: skip
