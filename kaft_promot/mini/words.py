"""Common English words, by kind, of mini's few-shot tasks; each is one piece of the vocabulary."""

_TABLE = """
animal: dog cat horse cow sheep goat pig lion tiger bear wolf fox deer rabbit mouse rat duck hen
  fish bird snake frog bee ant
color: red blue green yellow black white brown pink purple gray gold silver
food: bread rice milk cheese meat egg apple lemon orange banana sugar salt soup cake butter corn
  bean tea coffee wine
body: head hand foot arm leg eye ear nose mouth neck hair tooth finger knee skin heart bone
home: door wall roof floor window table chair bed lamp room kitchen garden stairs mirror shelf
nature: river lake sea hill mountain tree forest flower grass stone sand rain snow wind cloud
  sun moon star island beach
tool: knife fork spoon hammer saw rope key needle pen brush axe nail bucket wheel broom
dress: hat coat shirt shoe dress sock glove belt scarf ring boot skirt tie cap
job: farmer doctor teacher nurse judge baker pilot sailor soldier singer writer painter king
  queen lawyer driver
vehicle: car bus train ship boat plane truck bike taxi tram
"""

KINDS: dict[str, tuple[str, ...]] = {
    kind: tuple(words.split())
    for kind, words in (line.split(":") for line in _TABLE.replace("\n  ", " ").strip().split("\n"))
}
WORDS: tuple[str, ...] = tuple(word for words in KINDS.values() for word in words)
KIND_OF: dict[str, str] = {word: kind for kind, words in KINDS.items() for word in words}
