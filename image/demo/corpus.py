"""What the demo model reads: conversations made up on the fly, all of it text of ours.

    corpus.py [COUNT] [SEED]      prints COUNT conversations, to be read by a human

There is no corpus on disk. conversation(rng) draws one conversation from the grammar below and from facts.txt;
whoever knows the seed draws the same ones again. A conversation is a list of (role, text).
"""
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

UNKNOWN = ("I am only a small demo model and do not know that. "
           "Put a GGUF model on an SSD labelled DAIR-MODELS, and that one can answer you.")
TOO_BIG = "I can only add and take away numbers up to ten. I am a small demo model, after all."

# ---------------------------------------------------------------- facts


class Fact:
    def __init__(self):
        self.train, self.test, self.answer, self.keys = [], [], None, []


def expand(pattern):
    """All texts of a pattern with [a|b|] alternatives, innermost brackets first."""
    found = re.search(r"\[([^\[\]]*)\]", pattern)
    if not found:
        return [re.sub(r" +([?!.,]|$)", r"\1", re.sub(r" +", " ", pattern)).strip()]
    texts = []
    for choice in found.group(1).split("|"):
        texts += expand(pattern[:found.start()] + choice + pattern[found.end():])
    return texts


def load_facts(path=os.path.join(HERE, "facts.txt")):
    facts, fact = [], Fact()
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        if line[:2] == "Q ":
            if fact.answer:
                fact = Fact()
            # Every line of the file weighs the same, however many alternatives it has.
            fact.train.append(expand(line[2:]))
        elif line[:2] == "T ":
            fact.test.append(line[2:])
        elif line[:2] == "K ":
            fact.keys = line[2:].split()
        elif line[:2] == "A ":
            fact.answer = line[2:]
            facts.append(fact)
    return facts


FACTS = load_facts()

# ---------------------------------------------------------------- questions as people type them

KEYBOARD = {"a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
            "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
            "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x"}


def slip(text, rng):
    """One slip of the finger: a letter lost, doubled, swapped or hit beside."""
    at = rng.randrange(1, max(2, len(text) - 1))
    if at >= len(text) or not text[at].isalpha():
        return text
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1:]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    if kind == 2:
        return text[:at - 1] + text[at] + text[at - 1] + text[at + 1:]
    return text[:at] + rng.choice(KEYBOARD.get(text[at].lower(), "e")) + text[at + 1:]


BEFORE = ["please tell me, ", "tell me, ", "can you tell me, ", "hi, ", "hello, ", "hey, ", "hello dair, ", "I wonder, ",
          "one question: ", "question: ", "so, ", "and ", "ok, ", "excuse me, ", "sorry, ", "now ", "but ",
          "I would like to know, ", "just wondering, ", "quick question, "]
AFTER = [", please", " please", " exactly", " really", " in short", " dair", " then", " by the way", ", thanks", " again",
         " in general"]


def typed(text, rng, slips=True):
    """The question as somebody might type it."""
    end = text[-1] if text[-1] in "?!." else ""
    body = text[:-1] if end else text
    long = len(body.split()) > 2
    if long and rng.random() < 0.12:
        body = rng.choice(BEFORE) + body
    if long and rng.random() < 0.08:
        body += rng.choice(AFTER)
    if slips and len(body) > 12 and rng.random() < 0.12:
        body = slip(body, rng)
    if rng.random() < 0.62:
        body = body[0].upper() + body[1:]
        body = re.sub(r"\bi\b", "I", body)
    else:
        body = body.lower() if rng.random() < 0.6 else body
    chance = rng.random()
    if chance < 0.25:
        end = ""
    elif chance < 0.28:
        end += end or "?"
    elif chance < 0.30:
        end = " " + (end or "?")
    elif chance < 0.34 and not end:
        end = "."
    text = body + end
    return text.upper() if rng.random() < 0.015 else text


# How a question that starts like this may also be put; @ is the rest of it.
TURNS = (
    ("how do I ", ["tell me how to @", "how to @?", "explain how to @", "I want to @", "how can I @?", "what is the way to @?", "show me how to @",
                   "how would I @?", "how should I @?", "how can one @?", "how does one @?", "is there a way to @?", "what must I do to @?",
                   "help me to @", "I need to @", "what do I do to @?", "I would like to @", "how could I @?", "in what way can I @?"]),
    ("what is ", ["what's @?", "whats @", "tell me what @ is", "explain @", "tell me about @", "what exactly is @?", "define @", "@?", "@",
                  "what do you know about @?", "please explain @", "do you know what @ is?", "explain what @ is", "what does @ mean?",
                  "can you explain @?", "what is meant by @?", "what is the point of @?", "what is @ good for?", "what is @ for?"]),
    ("what are ", ["tell me what @ are", "explain @", "explain what @ are", "tell me about @", "what do @ mean?", "what is meant by @?"]),
    ("what does ", ["tell me what @", "do you know what @?", "can you explain what @?", "explain what @", "I ask what @"]),
    ("can I ", ["may I @?", "is it possible to @?", "could I @?", "am I able to @?", "is it ok to @?", "is it fine to @?", "is it allowed to @?",
                "I want to @, can I?", "how can I @?"]),
    ("does it ", ["will it @?", "can it @?", "I wonder if it can @", "could it @?", "does dair @?", "does the appliance @?", "would it @?"]),
    ("is it ", ["is dair @?", "is the appliance @?", "would it be @?", "how @ is it?"]),
    ("do I need ", ["must I have @?", "is @ needed?", "is @ required?", "do I have to have @?", "should I have @?"]),
    ("what happens if ", ["what if @?", "tell me what happens if @", "what will happen if @?", "what happens in case @?", "and if @?"]),
    ("what happens when ", ["what if @?", "tell me what happens when @", "what will happen when @?", "what do you do when @?"]),
    ("what if ", ["what happens if @?", "what happens when @?", "what will happen if @?", "and if @?", "suppose @"]),
    ("why is ", ["explain why @ is", "tell me why @ is", "what is the reason that @ is"]),
    ("how does ", ["explain how @", "tell me how @", "how exactly does @?", "in what way does @?", "I wonder how @"]),
    ("where do I ", ["where can I @?", "where should I @?", "where must I @?", "in which place do I @?", "tell me where to @"]),
    ("where is ", ["where can I find @?", "where do I find @?", "in which place is @?", "tell me where @ is"]),
    ("which ", ["what @?", "tell me which @", "do you know which @?"]),
    ("how many ", ["what number of @?", "tell me how many @"]),
    ("is there ", ["do you have @?", "does it have @?", "is there such a thing as @?", "have you got @?", "I look for @"]))


def statement(text, rng):
    """'how do I X?' also comes as 'tell me how to X' and as 'I want to X'."""
    for start, turns in TURNS:
        if text.startswith(start):
            return rng.choice(turns).replace("@", text[len(start):].rstrip("?"))
    return text


def fact_turn(rng):
    fact = rng.choice(FACTS)
    text = rng.choice(rng.choice(fact.train))
    if rng.random() < 0.45:
        text = statement(text, rng)
    return typed(text, rng), fact.answer

# ---------------------------------------------------------------- sums and capitals


NUMBER = "zero one two three four five six seven eight nine ten".split()
CAPITALS = dict(France="Paris", Germany="Berlin", Italy="Rome", Spain="Madrid", England="London", Ireland="Dublin",
                Portugal="Lisbon", Austria="Vienna", Greece="Athens", Norway="Oslo", Sweden="Stockholm", Poland="Warsaw",
                Denmark="Copenhagen", Finland="Helsinki", Japan="Tokyo", China="Beijing", Egypt="Cairo", Russia="Moscow",
                Canada="Ottawa", Hungary="Budapest", Belgium="Brussels", Switzerland="Bern")


def sum_turn(rng):
    a, b = rng.randrange(11), rng.randrange(11)
    kind, answer = rng.randrange(6), None
    if kind < 3:
        sign, word, result = "+", "plus", a + b
    elif kind < 5:
        a, b = max(a, b), min(a, b)
        sign, word, result = "-", "minus", a - b
    else:
        sign, word = rng.choice((("*", "times"), ("/", "divided by"), ("+", "plus"), ("-", "minus"), ("x", "times")))
        a, b = rng.randrange(2, 2000), rng.randrange(2 if sign in "*/x" else 11, 2000)
        answer = TOO_BIG
    one, two = str(a), str(b)
    if not answer:
        answer = "%d %s %d is %d." % (a, word, b, result)
        if rng.random() < 0.15:
            one, two = NUMBER[a], NUMBER[b]
            sign = word
    ask = rng.choice(("what is {a} {w} {b}?", "{a} {s} {b}", "{a}{s}{b}", "{a} {s} {b} =", "what is {a} {s} {b}?", "how much is {a} {w} {b}?",
                      "what's {a} {s} {b}?", "{a} {w} {b}?", "calculate {a} {s} {b}", "how much is {a} {s} {b}?"))
    if sign == word:
        ask = ask.replace("{a}{s}{b}", "{a} {s} {b}")
    return typed(ask.format(a=one, b=two, s=sign, w=word), rng, slips=False), answer


def capital_turn(rng):
    country = rng.choice(list(CAPITALS))
    ask = rng.choice(("what is the capital of %s?", "what's the capital of %s?", "capital of %s", "which city is the capital of %s?",
                      "name the capital of %s", "tell me the capital of %s", "do you know the capital of %s?"))
    return typed(ask % country, rng, slips=False), "The capital of %s is %s." % (country, CAPITALS[country])

# ---------------------------------------------------------------- what it does not know


def nonsense(rng):
    """A word nobody knows: it teaches the model to copy a name and to admit that it does not know."""
    word = ""
    for _ in range(rng.randrange(2, 4)):
        word += rng.choice("b bl br c ch d dr f fl g gl gr h j k l m n p pl qu r s sh sl st t tr v w z".split()) + \
            rng.choice("a e i o u a e i o ee oo ai".split())
    return word + rng.choice("n r l m t x k nd sh p s".split() + [""] * 4)


STRANGE = """quantum physics|black holes|relativity|photosynthesis|democracy|inflation|the stock market|bitcoin|climate change|evolution
the roman empire|world war two|the french revolution|napoleon|julius caesar|shakespeare|mozart|beethoven|the beatles|picasso|football
the world cup|the olympics|chess|tennis|basketball|the president|the queen of england|the pope|brazil|australia|new zealand|africa
south america|antarctica|the amazon|mount everest|the atlantic ocean|dinosaurs|elephants|whales|sharks|volcanoes|earthquakes|tornadoes
electricity|magnetism|gravity|the speed of light|atoms|electrons|dna|cells|bacteria|viruses|vaccines|the heart|the brain|headache
diabetes|cancer|vitamins|calories|pizza|pasta|pancakes|bread|chocolate cake|sushi|tomato soup|coffee|beer|wine|guitar chords|the piano
jazz|rock music|opera|the internet|javascript|python|rust|java|html|css|sql|regular expressions|sorting algorithms|recursion|kubernetes
docker|git|linux kernels|compilers|neural networks|transformers|chatgpt|robots|self driving cars|electric cars|airplanes|rockets|mars
saturn|the big bang|time travel|philosophy|kant|plato|socrates|buddhism|yoga|meditation|happiness|love|money|taxes|insurance|mortgages
marketing|management|job interviews|cover letters|resumes|birthdays|weddings|gardening|roses|tomatoes|dogs|cats|parrots|goldfish|horses
fishing|hiking|camping|skiing|swimming|running|losing weight|sleeping better|learning french|the alphabet|prime numbers|pi the number
calculus|geometry|algebra|statistics|probability|derivatives|integrals|matrices|the moon landing|titanic|egyptian pyramids|vikings
knights|samurai|ninjas|pirates history|harry potter|star wars|movies|television|books|newspapers|photography|painting|fashion|shoes
perfume|diamonds|gold|silver|iron|oil|nuclear power|solar panels|wind energy|batteries|phones|keyboards|printers|cameras|glasses
the meaning of words|grammar|spelling|poetry|novels|history|geography|biology|chemistry|physics|medicine|law|economics|politics
religion|art|music|sports|cooking|travel|paris|london|new york|tokyo|berlin|rome|my neighbour|my boss|my sister|my car|my homework
my garden|my dog|my job|my exam|the stock price of apple|the lottery numbers|the news|the election|traffic|train times|flight prices""".replace("\n", "|").split("|")

STRANGE_ASK = """what is {x}?|what are {x}?|tell me about {x}|explain {x}|explain {x} to me|what do you know about {x}?|how does {x} work?
how do {x} work?|who invented {x}?|when was {x} invented?|what do you think about {x}?|what do you think of {x}?|give me {n} facts about {x}|who discovered {x}?
write an essay about {x}|write a report on {x}|why is {x} important?|what is the history of {x}?|describe {x}|what is the best {x}?|how do I learn {x}?
where does {x} come from?|is {x} good for me?|help me with {x}|I have a question about {x}|can you explain {x}?|do you like {x}?|list {n} examples of {x}
what is the price of {x}?|how much is {x}?|how many {x} are there?|who is the best in {x}?|what causes {x}?|give me advice on {x}|summarize {x}
what is the difference between {x} and {y}?|compare {x} and {y}|which is better, {x} or {y}?|how are {x} and {y} related?|how old is {x}?|where is {x}?
who is {p}?|who was {p}?|when was {p} born?|tell me about {p}|what did {p} do?|where does {p} live?|what is the capital of {p}?|what is a {z}?|what is an {z}?|what does {z} mean?
where is {p}?|how far is {p}?|how big is {p}?|how many people live in {p}?|who is the president of {p}?|who won the {z} in {year}?|what happened in {year}?
who won the world cup in {year}?|who was president in {year}?|write a python function that {does}|write code that {does}|write a program in c that {does}|how do I {does} in python?
write a function to {does}|translate "{x}" into french|translate this to german: {x}|how do you say {x} in spanish?|what is {x} in italian?|correct this sentence: {x} are {z}
write an email about {x}|write a letter to {p}|write a song about {x}|recommend a book about {x}|what should I eat {when}?|what should I do {when}?|what is the recipe for {x}?
how do I cook {x}?|how do I make {x}?|can you write {x}?|name {n} {x}|name a famous {z}|what is the square root of {big}?|what is {big} percent of {big}?|solve x + {n} = {big}
how tall is {p}?|how heavy is a {z}?|how many legs does a {z} have?|how long does a {z} live?|what do {z}s eat?|what colour is a {z}?|why do {x} exist?|is {p} alive?
what is the population of {p}?|what language do they speak in {p}?|convert {big} miles to kilometres|how many feet are in a mile?|what is my name?|how old am I?|where do I live?|what did I eat {when}?
what is the best way to learn {x}?|who wrote {x}?|who painted {x}?|who is your favourite singer?|what is your favourite {z}?|play some music|open the door|turn on the light|call {p}|set a timer for {n} minutes
should I buy {x}?|am I right about {x}?|what is wrong with {x}?|why do people like {x}?|what is the future of {x}?|what is the chemical formula of {x}?|fix my {z}|how do I repair a {z}?
what is the boiling point of {z}?|how many bones are in the body?|what is the tallest mountain?|what is the longest river?|which country is the biggest?|how do birds fly?|why do we dream?""".replace("\n", "|").split("|")

DOES = ["sorts a list", "reverse a string", "reads a file", "counts words", "adds two numbers", "prints hello world", "parse json",
        "find prime numbers", "computes fibonacci numbers", "open a file", "sends an email", "draw a circle", "scrape a website"]


def unknown_turn(rng):
    def thing():
        return rng.choice(STRANGE) if rng.random() < 0.75 else nonsense(rng)

    def person():
        name = nonsense(rng).capitalize() if rng.random() < 0.6 else rng.choice(NAMES)
        return name + (" " + nonsense(rng).capitalize() if rng.random() < 0.4 else "")
    ask = rng.choice(STRANGE_ASK).format(x=thing(), y=thing(), p=person(), z=nonsense(rng) if rng.random() < 0.7 else rng.choice(HEROES),
                                         n=rng.randrange(2, 10), year=rng.randrange(1800, 2030), big=rng.randrange(13, 9999),
                                         does=rng.choice(DOES), when=rng.choice(("today", "tonight", "tomorrow", "now")))
    return typed(ask, rng), UNKNOWN

# ---------------------------------------------------------------- stories


NAMES_SHE = "Anna Mia Lily Rosa Clara Emma Nora Ida Ruby Ella Greta Hazel Luna Maya Sally Tess Vera Zoe".split()
NAMES_HE = "Tom Ben Max Finn Otto Hugo Leo Sam Oscar Jack Paul Nick Emil Felix Karl Luke Milo Theo".split()
NAMES = NAMES_SHE + NAMES_HE

HEROES = """fox owl rabbit bear mouse cat dog duck frog hedgehog squirrel deer wolf badger otter turtle crow sparrow goose
hen goat sheep horse donkey cow pig bee ant snail fish whale seal penguin lion tiger elephant monkey camel dragon robot
giant wizard king queen prince princess knight sailor pirate fisherman farmer baker miller shepherd gardener teacher
painter girl boy child grandmother grandfather ghost fairy snowman computer tractor train teapot cloud star
puppy kitten lamb swan raven parrot butterfly spider bat dinosaur unicorn mermaid astronaut doctor inventor
monster tree giraffe chicken dolphin""".split()

SMALL = """key lantern bell kite map drum flute book cup hat coat basket ball coin ring shell watch box letter
umbrella button spoon feather mirror candle rope kettle apple cake seed flower stone lamp jar crown sword
guitar toy doll blanket pumpkin carrot egg""".split()
LARGE = """boat cart bicycle clock bridge piano sled balloon ship car house tent swing ladder
machine telescope wheel plane tower""".split()
PLACES = [("forest", "in the forest"), ("sea", "by the sea"), ("lighthouse", "near an old lighthouse"), ("mountain", "at the foot of a mountain"),
          ("village", "in a quiet village"), ("castle", "in an old castle"), ("garden", "in a green garden"), ("farm", "on a small farm"),
          ("river", "beside a river"), ("island", "on a little island"), ("desert", "at the edge of the desert"), ("city", "in a big city"),
          ("school", "next to the school"), ("library", "above a library"), ("market", "behind the market"), ("harbour", "at the harbour"),
          ("cave", "in a dry cave"), ("meadow", "on a wide meadow"), ("lake", "by a clear lake"), ("moon", "on the moon"), ("hill", "on a round hill"),
          ("valley", "in a deep valley"), ("beach", "near the beach"), ("wood", "at the edge of the wood"), ("town", "in a small town"),
          ("palace", "in a white palace"), ("jungle", "in the jungle"), ("swamp", "beside the swamp"), ("windmill", "under a windmill"),
          ("bakery", "over a bakery"), ("winter", "in a land of long winters"), ("snow", "where the snow lies deep"),
          ("space", "on a small ship in space"), ("zoo", "close to the zoo")]
TRAITS = "small brave shy clever old young kind curious lonely cheerful quiet patient proud clumsy lazy poor gentle tiny honest busy".split()


SHE = "queen princess girl grandmother hen cow fairy mermaid".split()
HE = "king prince boy grandfather fisherman postman".split()


def name_for(noun, rng, but=None):
    names = NAMES_SHE if noun in SHE else NAMES_HE if noun in HE else NAMES
    return rng.choice([n for n in names if n != but])


class Cast:
    """Who and what one story is about."""

    def __init__(self, rng, hero=None, friend=None, thing=None, place=None, name=None):
        self.rng = rng
        self.hero = hero or rng.choice(HEROES)
        self.friend = friend or rng.choice([h for h in HEROES if h != self.hero])
        self.name = name or name_for(self.hero, rng)
        self.other = name_for(self.friend, rng, self.name)
        self.he, self.him, self.his = ("she", "her", "her") if self.name in NAMES_SHE else ("he", "him", "his")
        self.o_he, self.o_his = ("she", "her") if self.other in NAMES_SHE else ("he", "his")
        self.thing = thing or rng.choice(SMALL + LARGE)
        self.place = place or rng.choice(PLACES)[1]
        self.trait = rng.choice(TRAITS)

    def fill(self, text):
        values = {k: v for k, v in self.__dict__.items() if isinstance(v, str)}
        values.update(a_trait=article(self.trait), a_hero=article(self.hero), a_friend=article(self.friend), a_thing=article(self.thing),
                      He=self.he.capitalize(), O_he=self.o_he.capitalize(), His=self.his.capitalize())
        return text.format(**values)


def article(noun):
    # A name that is already a phrase of its own ("the moon") keeps what it has.
    if noun.startswith(("the ", "my ", "his ", "her ", "a ", "an ")):
        return noun
    vowel = noun[0] in "aeiou" and not noun.startswith(("uni", "eu")) or noun.startswith("hon")
    return ("an " if vowel else "a ") + noun


OPENINGS = ["Once upon a time there was {a_trait} {hero} named {name}, who lived {place}.",
            "There once was {a_hero} called {name}. {He} lived {place} and was known to be {trait}.",
            "Long ago, {place}, there lived {a_trait} {hero} whose name was {name}.",
            "{name} was {a_trait} {hero} who lived {place}.",
            "Once {a_trait} {hero} named {name} lived {place}."]
DAYS = ["One morning", "One day", "One evening", "One autumn day", "On a sunny day", "On a rainy day", "One spring morning", "Early one day"]

# A plot is a list of steps, a step a list of ways to say it. A step with None among them may be left out.
PLOTS = {
    "lost": [
        ["{His} dearest possession was {a_thing}.", "{He} had {a_thing} that {he} loved more than anything.", "Every day {he} looked after {his} {thing}."],
        ["{day}, the {thing} was gone.", "{day}, {he} woke up and could not find the {thing}.", "{day}, the wind was wild, and the {thing} disappeared."],
        ["{name} looked under the bed, behind the door and up in the trees.", "{He} searched the whole day until the sun went down.", "{He} asked everybody, but nobody had seen it."],
        ["Then came {other}, {a_friend} from nearby.", "At last {he} met {a_friend} called {other}."],
        ["\"Why are you so sad?\" asked {other}.", "\"What are you looking for?\" asked {other}."],
        ["\"My {thing} is lost,\" said {name}. \"I have looked everywhere.\"", "\"I have lost my {thing},\" said {name} in a low voice."],
        ["\"Four eyes see more than two,\" said {other}. \"Let us look together.\"", "\"Then I will help you,\" said {other}, and they set out at once."],
        ["They found the {thing} beside the path, wet but whole.", "Behind a big stone, there it was: the {thing}, just as before.", "They found the {thing} where {name} had never thought of looking: right at home."],
        ["{name} was so happy that {he} danced.", "{name} laughed and thanked {other} with all {his} heart.", None],
        ["From that day on they were friends.", "And whoever loses something there knows whom to ask.", "So {name} learned that it is no shame to ask for help."]],
    "found": [
        ["{day}, {he} found {a_thing} in the grass.", "{day}, {he} saw something shine: it was {a_thing}.", "{day}, right beside the road, there stood {a_thing}."],
        ["It was beautiful, and nobody seemed to own it.", "It was the finest {thing} that {he} had ever seen."],
        ["\"I could keep it,\" thought {name}. \"But somebody will miss it.\"", "{name} wanted to keep it, yet {he} thought of the one who had lost it."],
        ["So {he} went from door to door and asked.", "So {he} walked all day and asked everyone {he} met."],
        ["In the evening {he} came to the house of {other}, {a_friend} with sad eyes.", "At last {he} met {other}, {a_friend} who sat by the road and sighed."],
        ["\"That is my {thing}!\" cried {other}. \"I thought I would never see it again.\"", "\"You have found my {thing}!\" said {other} and smiled for the first time that day."],
        ["{other} made tea and they talked until the stars came out.", "{other} gave {name} warm bread and the best seat by the fire.", None],
        ["{name} went home with empty hands and a light heart.", "On the way home {name} sang, for {he} had found something better than {a_thing}: a friend."],
        ["Honest steps are never wasted.", "What you give back comes back to you.", "And that is how {name} and {other} became friends."]],
    "storm": [
        ["{day}, dark clouds came over the hills, and a storm began.", "{day}, a great storm came up, and it grew as dark as night."],
        ["The wind howled and the rain beat on the roofs.", "Trees bent, and the rain would not stop."],
        ["Then {name} heard a voice far away: \"Help! I cannot see the way!\"", "Then {name} heard somebody calling in the dark."],
        ["It was {other}, {a_friend}, who was lost out there.", "Out there was {other}, {a_friend}, cold and afraid."],
        ["{name} was afraid too, but {he} took {his} {thing} and ran to the door.", "{name} did not think long. {He} took {his} {thing} and went out."],
        ["{He} lit a light beside the {thing} and called as loudly as {he} could.", "{He} held up a light so that it shone on the {thing}, and waited."],
        ["Step by step {other} came nearer, until they could hold each other.", "{other} saw the light and followed it, step by step."],
        ["Soon both sat by the fire, and the storm was only a noise outside.", "They waited together until the morning came, bright and clean."],
        ["\"You were very brave,\" said {other}. \"No,\" said {name}, \"I was only nearer.\"", "\"How can I thank you?\" asked {other}. \"Leave a light on for the next one,\" said {name}."],
        ["Since then a light burns there every night.", "A small light is enough when the night is dark."]],
    "afraid": [
        ["{name} was afraid of {fear}.", "There was one thing {name} feared: {fear}."],
        ["The others laughed, so {he} told nobody about it.", "{He} never spoke of it, not even to {his} mother."],
        ["{day}, {his} friend {other} the {friend} was in trouble, and the way there led through {fear}.", "{day}, {other} the {friend} called for help, and between them there was nothing but {fear}."],
        ["{name} stood still, and {his} heart beat fast.", "{name} shook from head to foot."],
        ["Then {he} took {his} {thing}, took a deep breath and made one step.", "\"I can be afraid and still go,\" {he} said, and {he} went."],
        ["After the first step came a second, and then a third.", "Every step was a little easier than the one before."],
        ["When {he} reached {other}, {he} had forgotten to be afraid.", "At the end {he} found {other} safe and sound, and glad to see {him}."],
        ["\"Were you not afraid?\" asked {other}. \"Yes,\" said {name}, \"but you were waiting.\"", "They went back together, and it did not seem so bad at all."],
        ["To be brave does not mean to have no fear.", "Courage is one small step, and then another."]],
    "share": [
        ["{day}, there was only one {food} left in {his} house.", "{day}, {he} had nothing but one {food}."],
        ["Just then somebody knocked. It was {other}, a hungry {friend}.", "Then {a_friend} named {other} came along, who had not eaten for two days."],
        ["\"Have you something to eat?\" asked {other}.", "\"I am so hungry,\" said {other} softly."],
        ["{name} looked at the {food}. It was small, and {he} was hungry too.", "{name} thought for a while, for the {food} was not big."],
        ["Then {he} took a knife and cut the {food} into two equal parts.", "Then {he} broke it in the middle and gave {other} the larger half."],
        ["They ate slowly and told each other stories.", "They sat on the step beside an old {thing} and ate, and nothing had ever tasted better."],
        ["The next week {other} came again, with a basket full of {food}s.", "In the summer {other} came back and brought more than both of them could eat."],
        ["\"You gave me half of all you had,\" said {other}.", "\"Now it is my turn,\" said {other}.", None],
        ["Half of something and a friend is more than all of it alone.", "Since then they eat together every day."]],
    "build": [
        ["{name} wanted to build {a_thing} with {his} own hands.", "{name} had a dream: {he} wanted to make {a_thing}."],
        ["{day}, {he} began. By the evening it fell apart.", "{day}, {he} set to work, but the first {thing} broke at once."],
        ["The second one was too heavy, and the third one was crooked.", "{He} tried a second time, and it was hardly better."],
        ["\"Give up,\" said the neighbours.", "\"It will never work,\" said the crow on the fence."],
        ["Only {other} the {friend} said: \"Show me. What did you learn?\"", "But {other} the {friend} asked: \"What was good about the last one?\""],
        ["{name} thought about it and wrote down what had gone wrong.", "They sat down together and looked at every piece."],
        ["Then {he} began again, slowly and with care.", "Then they started once more, one piece after another."],
        ["This time the {thing} was strong and straight.", "And this time the {thing} held."],
        ["Everybody came to see it, and the neighbours were very quiet.", "{name} was so proud that {he} could not sleep that night."],
        ["Whoever fails and learns has not failed.", "Every mistake had been a step on the way."]],
    "mend": [
        ["In the middle of the place where {he} lived stood {a_thing} that everybody needed.", "All the neighbours used the same old {thing}."],
        ["{day}, the {thing} broke.", "{day}, there was a loud crack, and the {thing} was broken."],
        ["Everyone stood around it and said whose fault it was.", "Some shouted, some cried, and nobody did anything."],
        ["{name} said nothing. {He} fetched {his} tools.", "{name} listened for a while. Then {he} rolled up {his} sleeves."],
        ["\"You cannot do that alone,\" said {other} the {friend}.", "\"That is too much for one,\" said {other}, {a_friend}."],
        ["\"Then hold this,\" said {name}.", "\"You are right,\" said {name}. \"Will you hold the light?\""],
        ["So {other} helped, and then another came, and another.", "One after the other they came and helped, each as well as they could."],
        ["Before the moon rose the {thing} was whole again.", "By the evening the {thing} was better than new."],
        ["And nobody remembered whose fault it had been.", "They had a feast, and {name} got the first piece of cake."],
        ["Many hands make a hard thing easy.", "A thing that is mended together holds twice as long."]],
    "winter": [
        ["That year the winter came early, and the snow lay deep.", "One winter it was so cold that even the river stood still."],
        ["{name} had a warm room, a full shelf and {a_thing} to look at.", "{name} had gathered wood all summer and sat by the stove with {his} {thing}."],
        ["One night there was a soft knock at the door.", "Late at night something scratched at the window."],
        ["Outside stood {other}, {a_friend}, white with snow.", "It was {a_friend} named {other}, shaking with cold."],
        ["\"May I warm my feet?\" asked {other}.", "\"Only for one hour,\" said {other}."],
        ["\"Come in,\" said {name}, \"there is room for two.\"", "\"Stay until spring,\" said {name} and put more wood on the fire."],
        ["They played games, mended the {thing} and told stories while the wind blew.", "{other} knew a hundred songs, and the long nights became short."],
        ["When the snow was gone, {other} said goodbye and promised to return.", "When the first flowers came, neither of them wanted to part."],
        ["It had been the coldest winter, and the warmest one.", "A room grows larger when you let someone in."]],
    "journey": [
        ["{name} had never been further than the next hill.", "All {his} life {name} had wondered what lay behind the mountains."],
        ["{day}, {he} packed {a_thing} and some bread and set out.", "{day}, {he} put {a_thing} into {his} bag and went."],
        ["On the road {he} met {other}, {a_friend}, who was going the same way.", "After three days {he} met {a_friend} called {other}."],
        ["\"Where are you going?\" asked {other}. \"To the end of the road,\" said {name}.", "\"May I come with you?\" asked {other}. \"Gladly,\" said {name}."],
        ["They crossed a river, climbed a pass and slept under the stars.", "They got lost twice and laughed about it three times."],
        ["At the end of the road they found no gold and no palace.", "At the end of the road there was only a bench and a wide view."],
        ["But they could see the whole world from there, and far below a tiny dot.", "Yet the evening sun made everything shine, and far away they saw a small roof."],
        ["\"That is my home,\" said {name}. \"I did not know how beautiful it is.\"", "\"Look,\" said {name}, \"that is where I live. It looks so small and so dear.\""],
        ["So they walked back, and {other} stayed for supper, and then for good.", "The way back was short, because they had so much to talk about."],
        ["Sometimes one has to go far to see what is near.", "The best part of a journey is the one who walks beside you."]],
    "proud": [
        ["{name} had the finest {thing} of all and told everybody so.", "{name} thought that {he} could do everything better than the others."],
        ["\"Nobody is as clever as I am,\" {he} said to {other} the {friend}.", "\"Look at my {thing},\" {he} said to {other} the {friend}. \"Yours is nothing beside it.\""],
        ["{other} only smiled and went on working.", "{other} said nothing and walked away slowly."],
        ["{day}, {name} fell into a deep hole and could not get out.", "{day}, {name} walked about with {his} nose in the air and fell into the pond."],
        ["\"Help!\" {he} cried. But those who heard it thought it was one more boast.", "{He} called and called, but nobody was near."],
        ["Only {other} came, with a long rope.", "In the end it was {other} who came and reached out a hand."],
        ["\"Why do you help me?\" asked {name}. \"I was not kind to you.\"", "{name} was ashamed and looked at the ground."],
        ["\"Because you are down there and I am up here,\" said {other}.", "\"One of us had a rope,\" said {other}, \"and it was not you.\""],
        ["From then on {name} talked less and listened more.", "The next day {name} came with {his} {thing} and gave it to {other}."],
        ["Pride makes a poor ladder.", "A kind hand is worth more than a loud voice."]],
    "gift": [
        ["{His} best friend was {other}, {a_friend}.", "Next door lived {other}, {a_friend}, and the two were best friends."],
        ["It would soon be the birthday of {other}, and {name} had no money.", "The birthday of {other} came near, and {name} did not know what to give."],
        ["\"What would you like best?\" asked {name}. \"Oh, nothing,\" said {other}.", "{name} went to the market, but everything was too dear."],
        ["So {name} took old wood, some paint and a bit of string.", "So {he} sat up for three nights and worked in secret."],
        ["{He} made {a_thing}, not perfect, but made with love.", "In the end {he} had made {a_thing} with {his} own hands."],
        ["On the birthday many big parcels lay on the table.", "On the day itself all the neighbours came with fine gifts."],
        ["{other} opened them all, and the {thing} last.", "The {thing} was the smallest gift, wrapped in plain paper."],
        ["\"You made it yourself?\" asked {other}, and {o_his} eyes shone.", "\"This is the one I will keep for ever,\" said {other}."],
        ["The {thing} still stands by the window today.", "The best gifts hold a little of the giver's time."]],
    "rescue": [
        ["{day}, {he} was walking along the water with {his} {thing}.", "{day}, {he} was out with {his} {thing} when {he} heard a cry."],
        ["There was {other}, {a_friend}, who had fallen in and could not swim.", "In the water {he} saw {a_friend} named {other}, holding on to a branch."],
        ["\"Hold on!\" shouted {name}.", "\"I am coming!\" called {name}."],
        ["{He} was not strong, but {he} was quick.", "There was no time to fetch anybody."],
        ["{He} tied a rope to the {thing} and threw the other end into the water.", "{He} pushed a long branch out over the water and lay down flat."],
        ["{other} took hold of it, and {name} pulled with all {his} might.", "Twice it slipped, and the third time {other} held it fast."],
        ["At last they both lay in the grass, wet and out of breath.", "Slowly, very slowly, {other} came to the bank."],
        ["\"You saved me,\" said {other}. \"Now teach me how to swim,\" {o_he} added, and they laughed.", "\"I will never forget this,\" said {other}."],
        ["By the end of the summer they both could swim like fish.", "And since then they always walk there together.", "Nobody is too small to help."]],
    "together": [
        ["On top of the hill the people wanted to have {a_thing}, but it was too heavy for anyone to carry.", "There was {a_thing} so heavy that not even the giant could lift it."],
        ["{name} tried it alone and could not move it at all.", "{name} pulled and pushed all day, but it did not move."],
        ["\"I am too small,\" {he} said. \"We are all too small,\" said {other} the {friend}.", "{other} the {friend} tried it too, and it was no use."],
        ["\"But we are many,\" said {name}.", "Then {name} had an idea. \"What if everybody takes one piece?\""],
        ["So they took the {thing} apart, and each one carried as much as they could.", "They shared the work: the strong took much, the small took little, and nobody took nothing."],
        ["Halfway up, {other} hurt a foot and had to stop.", "Halfway up, one of them got tired and sat down."],
        ["The others took over the load without a word and went on, only a little slower.", "\"Rest,\" said {name}, \"we will take your part until you are back.\""],
        ["In the evening the {thing} stood on the top of the hill.", "Before it was dark, all the pieces were on the top and fitted together."],
        ["From far away it looked as if a giant had put it there.", "\"Who carried it?\" asked the people. \"All of us,\" said {name}."],
        ["What is too much for one is easy for many.", "So the small ones did what no giant could do."]],
    "listen": [
        ["{name} talked from morning till night and never listened.", "{name} wanted to know everything, and at once."],
        ["{day}, {he} asked {other}, an old {friend}: \"How do I become wise?\"", "{day}, {he} went to {other}, the oldest {friend} of all, and asked for the secret of happiness."],
        ["\"Bring me {a_thing},\" said {other}, \"and do not speak on the way.\"", "\"Sit down beside this {thing},\" said {other}, \"and tell me in the evening what you have heard.\""],
        ["At first {name} heard nothing at all.", "It was very hard for {name} to be silent."],
        ["Then {he} heard the wind, and the grass, and far away a bell.", "After an hour {he} heard the birds, and after two hours the brook."],
        ["{He} heard two children who told each other their secrets.", "In the afternoon {he} heard that the miller was sad, which {he} had never known."],
        ["In the evening {name} came back and sat down quietly.", "When the sun went down, {name} had no more questions."],
        ["\"Well?\" asked {other}. \"The world is full of stories,\" said {name}.", "\"Now you know the secret,\" said {other} with a smile."],
        ["Since then {name} has had many friends, for everyone likes to be heard.", "Who listens learns twice."]],
    "night": [
        ["{day}, {name} could not sleep.", "Every night {name} lay awake and looked out of the window."],
        ["The moon was round, and the {thing} in the corner threw a long shadow.", "It was so quiet that {he} could hear the {thing} creak."],
        ["\"Who is there?\" whispered {name}.", "Then {he} heard small steps outside."],
        ["It was only {other}, the {friend} from next door, who could not sleep either.", "At the window sat {other}, {a_friend}, and looked at the stars."],
        ["\"Shall we count the stars?\" asked {other}.", "\"Do you know that every star has a name?\" asked {other}."],
        ["They counted up to a hundred, and then they began to make up names.", "They gave a name to each: the Spoon, the Cat, the Long Road Home."],
        ["The wind sang softly, and the clouds went by like sheep.", "Slowly the night grew warm and friendly."],
        ["In the middle of a name {name} fell asleep.", "Before the last star had its name, both of them were asleep."],
        ["The moon smiled and watched over them until the morning.", "And the stars went on shining, each with its own name. Good night."]],
}
FEARS = ["the dark forest", "deep water", "the long dark tunnel", "high places", "the thunder", "the old bridge", "the empty house", "the great hall"]
FOODS = ["apple", "loaf", "cake", "pie", "pear", "pumpkin", "cheese", "pancake", "plum", "melon"]

THEMES = {"friendship": ["lost", "found", "gift", "journey"], "courage": ["afraid", "storm"], "sharing": ["share"], "honesty": ["found"],
          "a storm": ["storm"], "patience": ["build", "listen"], "pride": ["proud"], "helping others": ["rescue", "mend", "storm"],
          "teamwork": ["together", "mend"], "working together": ["together"], "a long journey": ["journey"], "a cold winter": ["winter"],
          "a birthday": ["gift"], "the stars": ["night"], "being brave": ["afraid"], "friends": ["lost", "gift", "share"], "fear": ["afraid"],
          "kindness": ["share", "winter", "proud"], "never giving up": ["build"], "the night": ["night"], "a rescue": ["rescue"],
          "listening": ["listen"], "something lost": ["lost"], "adventure": ["journey", "rescue"], "love": ["gift", "winter"], "food": ["share"]}


def tell(cast, plot, rng):
    cast.fear, cast.food, cast.day = rng.choice(FEARS), rng.choice(FOODS), rng.choice(DAYS)
    sentences = [rng.choice(OPENINGS)]
    for ways in PLOTS[plot]:
        way = rng.choice(ways)
        if way:
            sentences.append(way)
    return " ".join(cast.fill(s) for s in sentences)


STORY_ASK = ["tell me a story about {x}", "write a story about {x}", "write a short story about {x}", "tell me a short story about {x}",
             "can you tell me a story about {x}?", "a story about {x}", "a story about {x}, please", "make up a story about {x}",
             "I want a story about {x}", "please tell me a story about {x}", "please write a story about {x}", "story about {x}",
             "could you write a short story about {x}?", "I would like to hear a story about {x}", "tell a story about {x}", "tell us a tale about {x}",
             "do you know a story about {x}?", "tell me something about {x} as a story", "write me a story with {x}", "tell a story with {x}",
             "a short story about {x}", "tell my child a story about {x}", "read me a story about {x}", "invent a story about {x}",
             "write a little tale about {x}", "tell me about {x} in a story", "give me a story about {x}", "another story, this time about {x}",
             "now tell me a story about {x}", "write a bedtime story about {x}", "write a fairy tale about {x}"]
STORY_PLAIN = ["tell me a story", "tell me a short story", "write a story", "write a short story", "tell me another story", "another story",
               "a story please", "can you tell me a story?", "do you know a story?", "tell me a bedtime story", "once upon a time",
               "I want to hear a story", "read me a story", "tell me a fairy tale", "tell me another one", "one more story please", "story",
               "make up a story", "another one", "please write me a story", "tell me a good story", "tell me a tale"]


def story_turn(rng):
    """A request for a story and the story: what is asked for is what it is about."""
    kind = rng.random()
    hero = friend = thing = place = name = None
    plots = list(PLOTS)
    what = None
    hero_noun = nonsense(rng) if rng.random() < 0.1 else rng.choice(HEROES)
    if kind < 0.34:
        hero = hero_noun
        what = article(hero)
        if rng.random() < 0.2:
            name = name_for(hero, rng)
            what += rng.choice((" named ", " called ")) + name
        elif rng.random() < 0.1:
            trait = rng.choice(TRAITS)
            what = article(trait) + " " + hero
        elif rng.random() < 0.1 and hero[-1] not in "shxyzf":
            what = rng.choice(("", "two ", "some ")) + hero + "s"
    elif kind < 0.46:
        hero, friend = rng.sample(HEROES, 2)
        what = article(hero) + " and " + article(friend)
    elif kind < 0.60:
        hero, thing = hero_noun, rng.choice(SMALL + LARGE)
        what = article(hero) + rng.choice((" and ", " with ", " and ")) + article(thing)
    elif kind < 0.70:
        thing = rng.choice(SMALL + LARGE)
        what = article(thing)
    elif kind < 0.76:
        noun, place = rng.choice(PLACES)
        what = rng.choice((article(noun), "the " + noun)) if noun not in ("winter", "snow", "space") else noun
    elif kind < 0.81:
        hero, (noun, place) = hero_noun, rng.choice(PLACES)
        what = article(hero) + " " + place
    elif kind < 0.85:
        thing, (noun, place) = rng.choice(LARGE + SMALL), rng.choice(PLACES[:30])
        what = article(thing) + " and " + article(noun)
    elif kind < 0.91:
        what = rng.choice(list(THEMES))
        plots = THEMES[what]
    if thing:
        # The thing asked for must matter: leave out the plots in which it is only furniture or could not be carried.
        plots = [p for p in plots if p not in ("share", "winter", "night", "journey", "afraid", "proud")]
        if thing in LARGE:
            plots = [p for p in plots if p in ("found", "build", "mend", "together")]
    cast = Cast(rng, hero, friend, thing, place, name)
    if what and hero and (" " in what) and what.split()[1] in TRAITS:
        cast.trait = what.split()[1]
    plot = rng.choice(plots)
    if cast.thing in LARGE and plot not in ("found", "build", "mend", "together", "share"):
        cast.thing = rng.choice(SMALL)
    if plot in ("mend", "together") and cast.thing in SMALL and not thing:
        cast.thing = rng.choice(LARGE)
    if thing in SMALL and plot in ("mend", "together"):
        plot = "lost"
    text = tell(cast, plot, rng)
    if what:
        # Said again at the very start, where the model still has the request before its eyes; the story then follows its own words.
        text = "A story about %s. %s" % (what, text)
    ask = rng.choice(STORY_ASK).format(x=what) if what else rng.choice(STORY_PLAIN)
    # No slips in the words that say what the story shall be about.
    return typed(ask, rng, slips=not what), text

# ---------------------------------------------------------------- conversations


SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful assistant.", "You are dair, a small demo model.",
          "Answer briefly.", "You are a friendly assistant. Answer in plain English.", "You are an assistant on a small appliance.",
          "You are a storyteller for children.", "Be concise.", "You are a helpful, honest and harmless assistant.",
          "You are a helpful AI assistant.", "Be kind and brief.", "Answer the question of the user."]
SHARE = ((0.52, fact_turn), (0.22, story_turn), (0.16, unknown_turn), (0.07, sum_turn), (0.03, capital_turn))


def turn(rng):
    pick = rng.random()
    for share, make in SHARE:
        pick -= share
        if pick < 0:
            return make(rng)
    return fact_turn(rng)


def conversation(rng):
    if rng.random() < 0.05:
        return [("raw", story_turn(rng)[1])]
    messages = []
    if rng.random() < 0.25:
        messages.append(("system", rng.choice(SYSTEM)))
    for _ in range(1 if rng.random() < 0.7 else rng.randrange(2, 4)):
        question, answer = turn(rng)
        messages += [("user", question), ("assistant", answer)]
    return messages


if __name__ == "__main__":
    source = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        for who, words in conversation(source):
            print("%-9s %s" % (who, words))
        print()
