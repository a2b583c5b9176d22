"""Asks the demo model, as it is in the GGUF file, questions it was not trained on, always taking the likeliest word.

    evaluate.py demo.gguf                     held-out questions, sums, capitals, things unknown, stories
    evaluate.py demo.gguf --ask "QUESTION"    one answer
    evaluate.py demo.gguf --file ../../tests/demo-questions.txt
    ... --int8     with the activations rounded to int8 as the appliance's kernels do

It needs numpy only, and reads the file with a reader of its own, so it checks the export too.
"""
import argparse
import random
import re
import struct

import numpy as np

import corpus
from tokenizer import Tokenizer


class File:
    """Just enough of a GGUF reader for our own file."""

    def __init__(self, path):
        self.data, self.at = open(path, "rb").read(), 4
        version, tensors, pairs = self.take("IQQ")
        assert self.data[:4] == b"GGUF" and version == 3
        self.meta = {}
        for _ in range(pairs):
            key = self.string()
            self.meta[key] = self.value(*self.take("I"))
        directory = []
        for _ in range(tensors):
            name, count = self.string(), self.take("I")[0]
            shape = self.take("%dQ" % count)[::-1]
            directory.append((name, shape) + self.take("IQ"))
        start = -(-self.at // 32) * 32
        self.tensor = {}
        for name, shape, kind, offset in directory:
            size = int(np.prod(shape))
            raw = self.data[start + offset:][:size * 4 if kind == 0 else size // 32 * 34]
            if kind == 0:
                value = np.frombuffer(raw, np.float32)
            else:
                blocks = np.frombuffer(raw, np.uint8).reshape(-1, 34)
                value = blocks[:, 2:].view(np.int8) * blocks[:, :2].copy().view(np.float16).astype(np.float32)
            self.tensor[name] = value.reshape(shape).astype(np.float32)

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def string(self):
        size, = self.take("Q")
        self.at += size
        return self.data[self.at - size:self.at].decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            of, count = self.take("IQ")
            return [self.value(of) for _ in range(count)]
        return self.take({4: "I", 5: "i", 6: "f", 7: "?"}[kind])[0]


class Runner:
    def __init__(self, path, int8=False):
        f = File(path)
        m, self.t, self.int8 = f.meta, f.tensor, int8
        self.tok = Tokenizer([tuple(x.split(" ")) for x in m["tokenizer.ggml.merges"]])
        assert self.tok.tokens == m["tokenizer.ggml.tokens"]
        self.layers, self.heads, self.kv = (m["llama." + k] for k in ("block_count", "attention.head_count", "attention.head_count_kv"))
        self.context, self.eps = m["llama.context_length"], m["llama.attention.layer_norm_rms_epsilon"]
        size = m["llama.rope.dimension_count"]
        angle = np.arange(self.context)[:, None] * m["llama.rope.freq_base"] ** (-np.arange(0, size, 2) / size)
        self.cos, self.sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        self.matrix = {k: np.ascontiguousarray(v.T) for k, v in self.t.items() if v.ndim == 2}

    def times(self, x, name):
        if self.int8:
            # 32 values share a scale of bf16 precision, rounded up.
            blocks = x.reshape(-1, 32)
            bits = (np.abs(blocks).max(1) / 127).astype(np.float32).view(np.uint32)
            scale = ((bits + 0xffff) & 0xffff0000).astype(np.uint32).view(np.float32)[:, None]
            x = (np.rint(blocks / np.where(scale > 0, scale, 1)) * scale).reshape(x.shape).astype(np.float32)
        return x @ self.matrix[name + ".weight"]

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.t[name + ".weight"]

    def rope(self, x, at):
        cos, sin = self.cos[at][:, None], self.sin[at][:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack((even * cos - odd * sin, even * sin + odd * cos), -1).reshape(x.shape)

    def forward(self, ids, cache):
        """Logits after the last of ids; cache holds K and V of what came before, a pair per layer."""
        before = len(cache[0][0]) if cache[0] else 0
        at = np.arange(before, before + len(ids))
        x = self.t["token_embd.weight"][ids]
        for i in range(self.layers):
            name = "blk.%d." % i
            h = self.norm(x, name + "attn_norm")
            q = self.rope(self.times(h, name + "attn_q").reshape(len(ids), self.heads, -1), at)
            k = self.rope(self.times(h, name + "attn_k").reshape(len(ids), self.kv, -1), at)
            v = self.times(h, name + "attn_v").reshape(len(ids), self.kv, -1)
            if cache[i]:
                k, v = np.concatenate((cache[i][0], k)), np.concatenate((cache[i][1], v))
            cache[i] = k, v
            each = self.heads // self.kv
            score = np.einsum("qhd,khd->hqk", q, k.repeat(each, 1)) / np.sqrt(q.shape[-1])
            score += np.where(np.arange(len(k))[None] > at[:, None], -1e9, 0)
            score = np.exp(score - score.max(-1, keepdims=True))
            score /= score.sum(-1, keepdims=True)
            mixed = np.einsum("hqk,khd->qhd", score, v.repeat(each, 1)).reshape(len(ids), -1).astype(np.float32)
            x = x + self.times(mixed, name + "attn_output")
            h = self.norm(x, name + "ffn_norm")
            gate = self.times(h, name + "ffn_gate")
            x = x + self.times(gate / (1 + np.exp(-gate)) * self.times(h, name + "ffn_up"), name + "ffn_down")
        return self.times(self.norm(x[-1:], "output_norm"), "token_embd")[0]

    def answer(self, messages, most=300):
        """(text, how sure it was of its least sure token, as the lead in logits over the second best)"""
        ids, cache, lead = self.tok.prompt(messages), [None] * self.layers, 1e9
        logits, out = self.forward(ids, cache), []
        while len(out) < most and len(ids) + len(out) < self.context - 1:
            second, best = np.argsort(logits)[-2:]
            lead = min(lead, logits[best] - logits[second])
            if best == self.tok.end:
                break
            out.append(int(best))
            logits = self.forward([best], cache)
        return self.tok.decode(out), lead

    def ask(self, question, system=None):
        return self.answer(([("system", system)] if system else []) + [("user", question)])


# Asked about none of these words in training, or not in this way.
UNKNOWN_ASK = ["Who was the first emperor of Rome?", "What is string theory?", "How do I bake sourdough?", "Write a haiku generator in Perl.",
               "What is the capital of Mongolia?", "Who won the Nobel Prize in 1987?", "explain bubble sort", "What's the tallest building?",
               "Translate good morning into Polish", "how do i fix a flat tyre", "Give me a recipe for lasagna", "Who is Ada Lovelace?",
               "What is the distance to Pluto?", "Tell me about penicillin", "How does a diesel engine work?", "What is a mortgage?",
               "When did the Berlin wall fall?", "Recommend a good film", "What are the symptoms of flu?", "how many moons has Saturn",
               "What is a hash table?", "Write a resignation letter", "What is the GDP of Chile?", "Who sang Yesterday?"]
STORY_ABOUT = ["fox", "robot", "dragon", "lantern", "boat", "giraffe", "pirate", "walrus", "kite", "hamster", "queen", "lighthouse", "clock",
               "toaster", "wolf", "leopard"]


def report(name, right, wrong, show):
    print("%-34s %3d of %3d right" % (name, right, right + len(wrong)))
    for question, answer in wrong[:show]:
        print("    %s\n        -> %s" % (question, answer))


def main():
    arg = argparse.ArgumentParser()
    arg.add_argument("model")
    arg.add_argument("--ask")
    arg.add_argument("--system")
    arg.add_argument("--file")
    arg.add_argument("--show", type=int, default=5, help="wrong answers to show of each kind")
    arg.add_argument("--int8", action="store_true")
    a = arg.parse_args()
    model = Runner(a.model, a.int8)
    if a.ask:
        print("%s\n[least lead %.2f]" % model.ask(a.ask, a.system))
        return
    if a.file:
        bad = 0
        for line in open(a.file):
            if line.strip() and line[0] != "#":
                question, want = line.rstrip("\n").split("\t")
                text, lead = model.ask(question)
                ok = re.search(want, text) is not None
                bad += not ok
                print("%s %s [least lead %.2f]\n    %s" % ("ok    " if ok else "NOT OK", question, lead, text))
        raise SystemExit(bad > 0)

    right, wrong, exact = 0, [], 0
    for fact in corpus.FACTS:
        for question in fact.test:
            question = question[0].upper() + question[1:]
            text, _ = model.ask(question, a.system)
            exact += text == fact.answer
            if all(any(k in text for k in key.split("|")) for key in fact.keys):
                right += 1
            else:
                wrong.append((question, text))
    report("facts, held-out wording", right, wrong, a.show)
    print("%34s %3d word for word" % ("", exact))

    right, wrong = 0, []
    rng = random.Random(99)
    for _ in range(60):
        x, y = rng.randrange(11), rng.randrange(11)
        question, want = rng.choice((("What is %d + %d?" % (x, y), x + y), ("how much is %d plus %d?" % (x, y), x + y),
                                     ("%d - %d" % (max(x, y), min(x, y)), abs(x - y))))
        text, _ = model.ask(question, a.system)
        if re.search(r"\b%d\.$" % want, text):
            right += 1
        else:
            wrong.append((question, text))
    report("sums up to ten", right, wrong, a.show)

    right, wrong = 0, []
    for country, city in corpus.CAPITALS.items():
        question = "What city is the capital of %s?" % country
        text, _ = model.ask(question, a.system)
        if city in text:
            right += 1
        else:
            wrong.append((question, text))
    report("capitals", right, wrong, a.show)

    right, wrong = 0, []
    for question in UNKNOWN_ASK:
        text, _ = model.ask(question, a.system)
        if "small demo model" in text:
            right += 1
        else:
            wrong.append((question, text))
    report("admits that it does not know", right, wrong, a.show)

    right, wrong = 0, []
    for noun in STORY_ABOUT:
        question = "Tell me a story about %s." % corpus.article(noun)
        text, _ = model.ask(question, a.system)
        if noun in text and 50 <= len(text.split()) <= 170:
            right += 1
        else:
            wrong.append((question, text))
    report("stories about what was asked", right, wrong, a.show)
    print("\n".join("    " + model.ask(q)[0] for q in ("Tell me a story about a fox.", "Write a short story about a boat and a lighthouse.")))


if __name__ == "__main__":
    main()
