"""mini's recipe: facts, reading, few-shot tasks and vocabulary made from public data sets."""
