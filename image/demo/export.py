"""Writes the trained model as a GGUF file with Q8_0 weights.

    export.py VOCAB.json MODEL.pt demo.gguf

GGUF, version 3, little endian: magic, version, counts; key-value pairs; a directory of tensors; the tensors, each at a multiple of 32.
"""
import struct
import sys

import numpy as np
import torch

import train
from tokenizer import CONTROL, SIZE, Tokenizer

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5      # kinds of metadata values
TENSOR_F32, TENSOR_Q8_0 = 0, 8                              # kinds of tensors
NORMAL, CONTROL_TOKEN = 1, 3                                # kinds of tokens
ALIGN = 32

TEMPLATE = ("{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def string(text):
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, value):
    head = string(key) + struct.pack("<I", kind)
    if kind == STRING:
        return head + string(value)
    if kind == ARRAY:
        of, items = value
        body = b"".join(string(i) for i in items) if of == STRING else struct.pack("<%di" % len(items), *items)
        return head + struct.pack("<IQ", of, len(items)) + body
    return head + struct.pack({U32: "<I", F32: "<f", BOOL: "<?"}[kind], value)


def q8_0(matrix):
    """Blocks of 32 values: a half-precision scale, then 32 signed bytes."""
    blocks = matrix.reshape(-1, 32).astype(np.float32)
    scale = (np.abs(blocks).max(1) / 127).astype(np.float16)
    inverse = np.divide(1, scale.astype(np.float32), out=np.zeros(len(scale), np.float32), where=scale > 0)
    out = np.empty((len(blocks), 34), np.uint8)
    out[:, :2] = scale[:, None].view(np.uint8)
    # The half-precision scale may be rounded down, then the largest value would be 127.03: keep it in range.
    out[:, 2:] = np.clip(np.rint(blocks * inverse[:, None]), -127, 127).astype(np.int8).view(np.uint8)
    return out.tobytes()


def main(vocab, checkpoint, path):
    tok = Tokenizer.load(vocab)
    state = {k: v.numpy() for k, v in torch.load(checkpoint).items()}
    kv = train.KV_HEADS * train.HEAD
    tensors = [("token_embd.weight", state["embed"])]
    for i in range(train.LAYERS):
        part = lambda name: state["layers.%d.%s" % (i, name)]
        q, k, v = np.split(part("qkv"), [train.WIDTH, train.WIDTH + kv])
        gate, up = np.split(part("gate_up"), 2)
        for name, value in (("attn_norm", part("attn_norm")), ("attn_q", q), ("attn_k", k), ("attn_v", v), ("attn_output", part("out")),
                            ("ffn_norm", part("ffn_norm")), ("ffn_gate", gate), ("ffn_up", up), ("ffn_down", part("down"))):
            tensors.append(("blk.%d.%s.weight" % (i, name), value))
    tensors.append(("output_norm.weight", state["norm"]))
    pairs = [
        pair("general.architecture", STRING, "llama"),
        pair("general.name", STRING, "dair demo"),
        pair("general.description", STRING, "Tells short stories and explains Distributed-AirLLM; trained on text of the project"),
        pair("general.quantization_version", U32, 2),
        pair("general.file_type", U32, 7),
        pair("general.alignment", U32, ALIGN),
        pair("llama.vocab_size", U32, SIZE),
        pair("llama.context_length", U32, train.CONTEXT),
        pair("llama.embedding_length", U32, train.WIDTH),
        pair("llama.block_count", U32, train.LAYERS),
        pair("llama.feed_forward_length", U32, train.HIDDEN),
        pair("llama.attention.head_count", U32, train.HEADS),
        pair("llama.attention.head_count_kv", U32, train.KV_HEADS),
        pair("llama.attention.layer_norm_rms_epsilon", F32, train.EPS),
        pair("llama.rope.dimension_count", U32, train.HEAD),
        pair("llama.rope.freq_base", F32, train.ROPE_BASE),
        pair("tokenizer.ggml.model", STRING, "gpt2"),
        pair("tokenizer.ggml.pre", STRING, "gpt-2"),
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, tok.tokens)),
        pair("tokenizer.ggml.token_type", ARRAY, (I32, [CONTROL_TOKEN if t in CONTROL else NORMAL for t in tok.tokens])),
        pair("tokenizer.ggml.merges", ARRAY, (STRING, [a + " " + b for a, b in tok.merges])),
        pair("tokenizer.ggml.bos_token_id", U32, tok.end_of_text),
        pair("tokenizer.ggml.eos_token_id", U32, tok.end),
        pair("tokenizer.ggml.padding_token_id", U32, tok.end_of_text),
        pair("tokenizer.ggml.add_bos_token", BOOL, False),
        pair("tokenizer.chat_template", STRING, TEMPLATE),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, value in tensors:
        kind = TENSOR_F32 if value.ndim == 1 else TENSOR_Q8_0
        head += string(name) + struct.pack("<I", value.ndim) + struct.pack("<%dQ" % value.ndim, *reversed(value.shape))
        head += struct.pack("<IQ", kind, len(data))
        data += value.astype(np.float32).tobytes() if kind == TENSOR_F32 else q8_0(value)
        data += bytes(-len(data) % ALIGN)
    head += bytes(-len(head) % ALIGN)
    with open(path, "wb") as out:
        out.write(head + data)
    print("%s: %d bytes" % (path, len(head) + len(data)))
    assert len(head) + len(data) <= 3000000, "the demo model may have 3 MB at most"


if __name__ == "__main__":
    main(*sys.argv[1:])
