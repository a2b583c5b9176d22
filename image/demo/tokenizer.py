"""The vocabulary of the demo model: byte-level BPE as GPT-2 has it, learned from our own corpus.

    tokenizer.py VOCAB.json       learns the vocabulary and writes it

The ids are: 256 bytes, then one id per merge in the order learned, then the control tokens.
"""
import collections
import json
import random
import re
import sys

import corpus

SIZE = 1536
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONVERSATIONS = 12000

# GPT-2's way of cutting text into words. Python's re knows no \p{L}; for the text that we write this is the same.
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def byte_letters():
    """GPT-2 writes each byte as one printable letter; the odd ones are moved to U+0100 and up."""
    letters, moved = {}, 0
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(256 + moved)
            moved += 1
    return letters


LETTER = byte_letters()
BYTE = {letter: byte for byte, letter in LETTER.items()}


class Tokenizer:
    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.tokens = [LETTER[b] for b in range(256)] + [a + b for a, b in self.merges] + CONTROL
        self.id = {t: i for i, t in enumerate(self.tokens)}
        self.end_of_text, self.start, self.end = (self.id[c] for c in CONTROL)
        self.cache = {}

    def word(self, word):
        ids = self.cache.get(word)
        if ids is None:
            parts = [LETTER[b] for b in word.encode("utf-8")]
            while len(parts) > 1:
                pairs = [self.rank.get(p, 1 << 30) for p in zip(parts, parts[1:])]
                best = min(pairs)
                if best == 1 << 30:
                    break
                at = pairs.index(best)
                parts[at:at + 2] = [parts[at] + parts[at + 1]]
            ids = self.cache[word] = [self.id[p] for p in parts]
        return ids

    def encode(self, text):
        return [i for word in WORD.findall(text) for i in self.word(word)]

    def decode(self, ids):
        text = bytearray()
        for i in ids:
            token = self.tokens[i]
            text += token.encode() if token in CONTROL else bytes(BYTE[c] for c in token)
        return text.decode("utf-8", "replace")

    def prompt(self, messages):
        """The ids up to where the model goes on: what the chat template gives with add_generation_prompt."""
        ids = []
        for role, text in messages:
            ids += [self.start] + self.encode(role + "\n" + text) + [self.end] + self.encode("\n")
        return ids + [self.start] + self.encode("assistant\n")

    @staticmethod
    def load(path):
        return Tokenizer(json.load(open(path))["merges"])


def learn(words, count):
    """The plain algorithm: join the most frequent pair, again and again. Ties go to the smaller pair: repeatable."""
    words = [([LETTER[b] for b in word.encode("utf-8")], n) for word, n in words.items()]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for at, (parts, n) in enumerate(words):
        for pair in zip(parts, parts[1:]):
            pairs[pair] += n
            where[pair].add(at)
    merges = []
    while len(merges) < count:
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for at in where.pop(best):
            parts, n = words[at]
            for pair in zip(parts, parts[1:]):
                pairs[pair] -= n
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i:i + 2] = [best[0] + best[1]]
                i += 1
            for pair in zip(parts, parts[1:]):
                pairs[pair] += n
                where[pair].add(at)
        pairs.pop(best, None)
    return merges


if __name__ == "__main__":
    rng, counts = random.Random(7), collections.Counter()
    for _ in range(CONVERSATIONS):
        for role, text in corpus.conversation(rng):
            for word in WORD.findall(role + "\n" + text):
                # Digits stay single, so that sums and ports are spelled the same everywhere.
                if not re.search(r"\d", word):
                    counts[word] += 1
    # Words seen twice are slips of the finger and made-up names.
    counts = {w: n for w, n in counts.items() if n > 3}
    # The words that a story is about become one token each: a small model copies one token far more easily than three.
    for word in corpus.HEROES + corpus.SMALL + corpus.LARGE + corpus.NAMES + corpus.TRAITS + list(corpus.CAPITALS) + list(corpus.CAPITALS.values()):
        counts[" " + word] = counts.get(" " + word, 0) + 3000
    merges = learn(counts, SIZE - 256 - len(CONTROL))
    json.dump({"merges": merges}, open(sys.argv[1], "w"))
    tok = Tokenizer(merges)
    text = corpus.story_turn(random.Random(1))[1]
    assert tok.decode(tok.encode(text)) == text
    print("%d tokens; a story of %d words takes %d tokens" % (len(tok.tokens), len(text.split()), len(tok.encode(text))))
