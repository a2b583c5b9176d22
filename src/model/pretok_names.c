/* The names that converters write, and what each stands for. The families differ in what surrounds a
 * pattern, not in the pattern itself. */
#include "model/pretok.h"

#include <string.h>

enum { WHOLE = 1, TIDY = 2, BOS = 4, MARKS = 8 };

static const struct named {
    const char *name;
    enum pretok_cut cut;
    unsigned is;
} names[] = {
    {"llama-bpe", PRETOK_LLAMA3, WHOLE | TIDY | BOS},
    {"llama3", PRETOK_LLAMA3, WHOLE | TIDY | BOS},
    {"llama-v3", PRETOK_LLAMA3, WHOLE | TIDY | BOS},
    {"falcon3", PRETOK_LLAMA3, WHOLE | TIDY | BOS},
    {"falcon-h1", PRETOK_LLAMA3, WHOLE | TIDY | BOS},
    {"pixtral", PRETOK_LLAMA3, WHOLE | TIDY | BOS},
    {"midm-2.0", PRETOK_LLAMA3, WHOLE | TIDY | BOS},
    {"lfm2", PRETOK_LLAMA3, WHOLE | TIDY | BOS},
    {"dbrx", PRETOK_LLAMA3, TIDY},
    {"smaug-bpe", PRETOK_LLAMA3, TIDY},
    {"glm4", PRETOK_LLAMA3, TIDY},
    {"chatglm-bpe", PRETOK_LLAMA3, TIDY},
    {"gpt-2", PRETOK_GPT2, TIDY},
    {"phi-2", PRETOK_GPT2, TIDY},
    {"mpt", PRETOK_GPT2, TIDY},
    {"olmo", PRETOK_GPT2, TIDY},
    {"jais", PRETOK_GPT2, TIDY},
    {"gigachat", PRETOK_GPT2, TIDY},
    {"a.x-4.0", PRETOK_GPT2, TIDY},
    {"mellum", PRETOK_GPT2, TIDY},
    {"exaone4", PRETOK_GPT2, TIDY},
    {"trillion", PRETOK_GPT2, 0},
    {"granite-docling", PRETOK_GPT2, 0},
    {"qwen2", PRETOK_QWEN2, 0},
    {"deepseek-r1-qwen", PRETOK_QWEN2, 0},
    {"kormo", PRETOK_QWEN2, 0},
    {"hunyuan", PRETOK_QWEN2, 0},
    {"grok-2", PRETOK_QWEN2, 0},
    {"megrez", PRETOK_QWEN2, TIDY},
    {"stablelm2", PRETOK_QWEN2, TIDY},
    {"qwen35", PRETOK_QWEN35, 0},
    {"minicpm5", PRETOK_MINICPM5, WHOLE | TIDY},
    {"seed-coder", PRETOK_SEED, 0},
    {"bailingmoe", PRETOK_QWEN2, 0},
    {"bailingmoe2", PRETOK_QWEN2, 0},
    {"llada-moe", PRETOK_QWEN2, 0},
    {"solar-open", PRETOK_QWEN2, 0},
    {"tekken", PRETOK_TEKKEN, WHOLE | BOS},
    {"gpt-4o", PRETOK_GPT4O, 0},
    {"llama4", PRETOK_GPT4O, 0},
    {"kanana2", PRETOK_GPT4O, 0},
    {"minimax-m2", PRETOK_GPT4O, 0},
    {"talkie", PRETOK_GPT4O, 0},
    {"smollm", PRETOK_DIGITS_GPT2, 0},
    {"command-r", PRETOK_DIGITS_GPT2, 0},
    {"starcoder", PRETOK_DIGITS_GPT2, TIDY},
    {"refact", PRETOK_DIGITS_GPT2, TIDY},
    {"codeshell", PRETOK_DIGITS_GPT2, TIDY},
    {"exaone", PRETOK_DIGITS_GPT2, TIDY},
    {"minerva-7b", PRETOK_DIGITS_GPT2, TIDY},
    {"mellum2", PRETOK_DIGITS_GPT2, TIDY},
    {"poro-chat", PRETOK_BLOOM, 0},
    {"bloom", PRETOK_BLOOM, TIDY},
    {"gpt3-finnish", PRETOK_BLOOM, TIDY},
    {"viking", PRETOK_VIKING, 0},
    {"falcon", PRETOK_FALCON, TIDY},
    {PRETOK_UNKNOWN, PRETOK_DEFAULT, TIDY},
    {"deepseek-llm", PRETOK_DEEPSEEK, 0},
    {"deepseek-coder", PRETOK_DEEPSEEK_CODER, 0},
    {"deepseek-v3", PRETOK_DEEPSEEK3, 0},
    {"hunyuan-dense", PRETOK_DEEPSEEK3, 0},
    {"joyai-llm", PRETOK_DEEPSEEK3, 0},
    {"hy_v4", PRETOK_DEEPSEEK3, 0},
    {"gemma4", PRETOK_LINES, TIDY | BOS | MARKS},
};

bool pretok_find(struct pretok *p, const char *name) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct named *n = &names[i];
        if (strcmp(name, n->name) != 0) continue;
        *p = (struct pretok){n->cut, n->is & WHOLE, n->is & TIDY, n->is & BOS, n->is & MARKS};
        return true;
    }
    return false;
}

size_t pretok_count(void) {
    return sizeof names / sizeof *names;
}
