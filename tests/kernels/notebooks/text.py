"""Text is taken apart by classes, closures and generators."""

# %%
import re
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum

TEXT = """The river ran past the mill. The mill had been silent for years!
Who, then, had lit the lamp in the mill? Nobody knew; nobody asked."""
len(TEXT)
# %%


class Kind(Enum):
    WORD = "word"
    MARK = "mark"


@dataclass
class Token:
    text: str
    kind: Kind
    follows: list["Token"] = field(default_factory=list, repr=False)

    @property
    def folded(self):
        return self.text.casefold()


# %%
def tokens(text):
    for match in re.finditer(r"(\w+)|([^\w\s])", text):
        yield Token(match[0], Kind.WORD if match[1] else Kind.MARK)


stream = list(tokens(TEXT))
stream[:3]
# %%
for before, after in zip(stream, stream[1:]):
    before.follows.append(after)
stream[0].follows[0] is stream[1]


# %%
def counter(start=0):
    seen = start

    def count(token):
        nonlocal seen
        seen += token.kind is Kind.WORD
        return seen

    return count


count = counter()
for token in stream[:10]:
    count(token)
# %%
index = defaultdict(list)
for token in stream:
    count(token)
    index[token.folded].append(token)
index["mill"][0] is stream[6], count(stream[0])


# %%
class Memory:
    """Keeps the last few words."""

    size = 3

    def __init__(self):
        self.words = deque(maxlen=self.size)
        self.listeners = [self.words.append]

    def hear(self, token):
        for listener in self.listeners:
            listener(token.folded)


memory = Memory()
for token in stream:
    memory.hear(token)
memory.words
# %%
heard = memory.words
memory.hear(Token("again", Kind.WORD))
Memory.size = 5
by_kind = {kind: [token for token in stream if token.kind is kind] for kind in Kind}
frequent = Counter(token.folded for token in by_kind[Kind.WORD]).most_common(3)
print(frequent, list(heard))
# %%
words = iter(sorted(index))
first = [next(words) for _ in range(3)]
del token, before, after
first
# %%
try:
    index["nobody"].append(stream[-1])
    raise LookupError("nobody")
except LookupError as error:
    problems = [error]
print(next(words), [one.text for one in index["nobody"]])
problems
# %%
try:
    count(None)
except AttributeError as error:
    print("failed:", error)
count(stream[0]), Kind("word") is Kind.WORD, Memory().size, heard is memory.words
