"""Trains the demo model on the processor.

    train.py VOCAB.json OUT.pt [--workers N] [--steps N] [--minutes M] [--seed S] [--from CHECKPOINT.pt]     (--help for all)

The model is a plain Llama: RMS norm, grouped-query attention with 4 KV heads, rotary positions on neighbouring pairs (as GGUF's
"llama" has them, so the weights need no reordering), SwiGLU, the embedding used again as output.
OUT.pt is written every 50 steps, so training may be stopped at any time and what there is exported.
"""
import argparse
import os
import random
import re
import tempfile
import time

import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
from torch import nn

import corpus
from tokenizer import SIZE, WORD, Tokenizer

LAYERS, WIDTH, HEADS, KV_HEADS, HIDDEN, CONTEXT = 4, 256, 8, 4, 480, 512
HEAD = WIDTH // HEADS
EPS, ROPE_BASE = 1e-5, 10000.0


def norm(x, gain):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * gain


def rope_table(count):
    angle = torch.arange(count)[:, None] * ROPE_BASE ** (-torch.arange(0, HEAD, 2) / HEAD)[None, :]
    return angle.cos()[:, None, :], angle.sin()[:, None, :]


def rope(x, cos, sin):
    """x: [rows, positions, heads, HEAD]; elements 2i and 2i+1 turn together."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Muon:
    """Steps of equal size in all directions of a matrix: the gradient's momentum, made orthogonal by a few Newton-Schulz rounds.
    In so short a training that is worth more than Adam's scaling of single weights."""

    def __init__(self, matrices, momentum=0.95):
        self.slots = [(m, torch.zeros_like(m)) for m in matrices]
        self.momentum = momentum

    @torch.no_grad()
    def step(self, rate, decay=0.01):
        for matrix, mean in self.slots:
            mean.lerp_(matrix.grad, 1 - self.momentum)
            x = matrix.grad.lerp(mean, self.momentum)
            # Two blocks where the matrix is about twice as long as wide: cheaper, and each is (nearly) square.
            side = 0 if x.shape[0] >= x.shape[1] else 1
            count = max(1, round(x.shape[side] / x.shape[1 - side]))
            x = torch.stack(x.chunk(count, side))
            x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
            if side == 0:
                x = x.transpose(1, 2)
            for _ in range(5):
                y = x @ x.transpose(1, 2)
                x = 3.4445 * x + (-4.775 * y + 2.0315 * y @ y) @ x
            if side == 0:
                x = x.transpose(1, 2)
            x = torch.cat(list(x), side)
            matrix.mul_(1 - rate * decay).add_(x, alpha=-rate)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        kv = KV_HEADS * HEAD
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))

        def matrix(rows, columns, shrink=1.0):
            return nn.Parameter(torch.randn(rows, columns) * shrink * columns ** -0.5)
        self.qkv = matrix(WIDTH + 2 * kv, WIDTH)
        self.out = matrix(WIDTH, WIDTH, (2 * LAYERS) ** -0.5)
        self.gate_up = matrix(2 * HIDDEN, WIDTH)
        self.down = matrix(WIDTH, HIDDEN, (2 * LAYERS) ** -0.5)

    def forward(self, x, cos, sin, mask):
        rows, count, _ = x.shape
        q, k, v = F.linear(norm(x, self.attn_norm), self.qkv).split([WIDTH, KV_HEADS * HEAD, KV_HEADS * HEAD], -1)
        q = rope(q.view(rows, count, HEADS, HEAD), cos, sin).transpose(1, 2)
        k = rope(k.view(rows, count, KV_HEADS, HEAD), cos, sin).transpose(1, 2)
        v = v.view(rows, count, KV_HEADS, HEAD).transpose(1, 2)
        # Query heads 2i and 2i+1 share KV head i.
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        weight = torch.softmax(q @ k.transpose(-1, -2) * HEAD ** -0.5 + mask, -1)
        x = x + F.linear((weight @ v).transpose(1, 2).reshape(rows, count, WIDTH), self.out)
        gate, up = F.linear(norm(x, self.ffn_norm), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Parameter(torch.randn(SIZE, WIDTH) * 0.05)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.Parameter(torch.ones(WIDTH))
        self.tables = {}

    def forward(self, ids, part):
        """part: which conversation each token belongs to; it sees that one only. Positions are relative, so a conversation in the
        middle of a row is learned as if it stood alone."""
        count = ids.shape[1]
        if count not in self.tables:
            self.tables[count] = rope_table(count) + (torch.ones(count, count).tril().bool(),)
        cos, sin, past = self.tables[count]
        mask = torch.where(past & (part[:, :, None] == part[:, None, :]), 0.0, -1e9)[:, None]
        x = F.embedding(ids, self.embed)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return F.linear(norm(x, self.norm), self.embed)


HEAVY = 4.0
COPIED = frozenset(corpus.NAMES + corpus.HEROES + corpus.SMALL + corpus.LARGE)


def answer_weights(tok, text, question, story=False):
    """(id, weight) of an answer. Most of it follows from the words just before, and a small model would be content with learning that.
    So the places that depend on the question weigh more: the first few tokens, numbers, and words that were said before."""
    said, at = set(re.findall(r"[^\W\d_]+|\d+", question)), 0
    for word in WORD.findall(text):
        bare = word.strip()
        heavy = at < 4 and not story or bare in COPIED or bare.isdigit() or (len(bare) > 3 and bare in said)
        for i in tok.word(word):
            yield i, HEAVY if heavy else 1.0
            at += 1
    yield tok.end, 1.0


def conversation(tok, rng):
    """(id, weight) of one conversation: what the assistant says counts, what it is asked only a little."""
    newline, question = [(i, 0.1) for i in tok.encode("\n")], ""
    for role, text in corpus.conversation(rng):
        if role == "raw":
            yield from answer_weights(tok, text, "", True)
            yield from newline
            continue
        yield tok.start, 0.1
        yield from ((i, 0.1) for i in tok.encode(role + "\n"))
        if role == "assistant":
            yield from answer_weights(tok, text, question)
        else:
            question = text
            yield from ((i, 0.1) for i in tok.encode(text) + [tok.end])
        yield from newline


class Batches:
    """Rows of conversations one after the other; the last one of a row is cut off."""

    def __init__(self, tok, seed):
        self.tok, self.rng = tok, random.Random(seed)

    def row(self, length):
        row, part = [], 0
        while len(row) <= length:
            row += [(i, weight, part) for i, weight in conversation(self.tok, self.rng)]
            part += 1
        return row[:length + 1]

    def next(self, rows, length):
        """ids, and for each the next one, its weight, and the conversation it is in. Nothing leads from one conversation to the next:
        the first token of one has no weight."""
        both = torch.tensor([self.row(length) for _ in range(rows)])
        ids, part = both[..., 0].long(), both[..., 2]
        return ids[:, :-1], ids[:, 1:], both[:, 1:, 1] * (part[:, 1:] == part[:, :-1]), part[:, :-1]


def main():
    arg = argparse.ArgumentParser()
    arg.add_argument("vocab")
    arg.add_argument("out")
    arg.add_argument("--steps", type=int, default=3500)
    arg.add_argument("--minutes", type=float, default=1e9, help="end the schedule by then, however many steps that is")
    arg.add_argument("--threads", type=int, default=1)
    arg.add_argument("--seed", type=int, default=1)
    arg.add_argument("--rate", type=float, default=2e-3, help="of AdamW; the matrices take eight times that")
    arg.add_argument("--tokens", type=int, default=1024, help="per step and worker")
    arg.add_argument("--from", dest="start")
    arg.add_argument("--workers", type=int, default=1, help="processes that share a step, each with its own conversations")
    a = arg.parse_args()
    if a.workers == 1:
        train(0, a, None)
    else:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(train, (a, "file://" + folder + "/meet"), a.workers)


def average(vector, workers):
    """The mean over the workers of the vector's values."""
    if workers > 1:
        torch.distributed.all_reduce(vector)
        vector /= workers
    return vector


def train(rank, a, meet):
    if meet:
        torch.distributed.init_process_group("gloo", meet, rank=rank, world_size=a.workers)
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    tok = Tokenizer.load(a.vocab)
    model = Model()
    if a.start:
        model.load_state_dict(torch.load(a.start))
    muon = Muon([p for layer in model.layers for p in layer.parameters() if p.dim() == 2])
    rest = [p for p in model.parameters() if p.dim() == 1] + [model.embed]
    opt = torch.optim.AdamW(rest, lr=a.rate, betas=(0.9, 0.98), eps=1e-8, weight_decay=0)
    batches = Batches(tok, 1000 * a.seed + rank)
    everything = list(model.parameters())
    slow = [p.detach().clone() for p in everything]
    begin, step, mean, done = time.time(), 0, None, 0.0
    if rank == 0:
        print("%d parameters" % sum(p.numel() for p in everything), flush=True)
    while done < 1:
        # Warm up, hold, then down to nearly nothing. Full length only at the end: it costs more.
        rate = a.rate * min(1, (step + 1) / 50) * (min(1, (1 - done) / 0.6) + 0.01)
        length = 256 if done < 0.9 else CONTEXT
        ids, target, weight, part = batches.next(max(1, a.tokens // length), length)
        loss = F.cross_entropy(model(ids, part).view(-1, SIZE), target.reshape(-1), reduction="none")
        loss = (loss * weight.reshape(-1)).sum() / weight.sum()
        model.zero_grad()
        loss.backward()
        done = min(1, max((step + 1) / a.steps, (time.time() - begin) / 60 / a.minutes))
        # The loss and how far we are travel with the gradients, so that all workers agree on them.
        flat = average(torch.cat([p.grad.flatten() for p in everything] + [torch.tensor([loss.item(), done])]), a.workers)
        for p, grad in zip(everything, flat.split([p.numel() for p in everything] + [2])):
            p.grad.copy_(grad.view_as(p))
        seen, done = flat[-2].item(), flat[-1].item()
        nn.utils.clip_grad_norm_(rest, 1.0)
        for group in opt.param_groups:
            group["lr"] = rate
        muon.step(8 * rate)
        opt.step()
        step += 1
        mean = seen if mean is None else 0.95 * mean + 0.05 * seen
        if rank == 0 and step % 25 == 0:
            print("step %5d  loss %.4f  rate %.5f  %4.0f s  %3.0f %%" % (step, mean, rate, time.time() - begin, 100 * done), flush=True)
        # What is saved is the mean of the last steps' weights: better than any single one of them.
        with torch.no_grad():
            for p, m in zip(everything, slow):
                m.lerp_(p, max(0.02, 1 / step))
        if rank == 0 and (step % 50 == 0 or done >= 1):
            torch.save(dict(zip((n for n, _ in model.named_parameters()), slow)), a.out + ".new")
            os.replace(a.out + ".new", a.out)


if __name__ == "__main__":
    main()
