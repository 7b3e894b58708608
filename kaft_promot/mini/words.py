"""Common English words, by kind, of mini's few-shot tasks. The vocabulary holds each of them as one piece."""

KINDS: dict[str, tuple[str, ...]] = {
    "animal": tuple("dog cat horse cow sheep goat pig lion tiger bear wolf fox deer rabbit mouse rat duck hen fish bird "
                    "snake frog bee ant".split()),
    "color": tuple("red blue green yellow black white brown pink purple gray gold silver".split()),
    "food": tuple("bread rice milk cheese meat egg apple lemon orange banana sugar salt soup cake butter corn bean tea "
                  "coffee wine".split()),
    "body": tuple("head hand foot arm leg eye ear nose mouth neck hair tooth finger knee skin heart bone".split()),
    "home": tuple("door wall roof floor window table chair bed lamp room kitchen garden stairs mirror shelf".split()),
    "nature": tuple("river lake sea hill mountain tree forest flower grass stone sand rain snow wind cloud sun moon star "
                    "island beach".split()),
    "tool": tuple("knife fork spoon hammer saw rope key needle pen brush axe nail bucket wheel broom".split()),
    "dress": tuple("hat coat shirt shoe dress sock glove belt scarf ring boot skirt tie cap".split()),
    "job": tuple("farmer doctor teacher nurse judge baker pilot sailor soldier singer writer painter king queen "
                 "lawyer driver".split()),
    "vehicle": tuple("car bus train ship boat plane truck bike taxi tram".split()),
}  # fmt: skip
WORDS: tuple[str, ...] = tuple(word for words in KINDS.values() for word in words)
KIND_OF: dict[str, str] = {word: kind for kind, words in KINDS.items() for word in words}
