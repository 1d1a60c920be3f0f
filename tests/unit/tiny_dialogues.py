"""Made-up dialogues in ReDial's raw format, and loaded ones."""

import json

import numpy as np

from data_prep import dialogue_formats
from rec_utils.dialogues import Dialogues

TITLES = {
    1: "Heat (1995)", 2: "Toy Story  (1995)", 3: "Alien (1979)", 4: "The Matrix (1999)", 5: "Up (2009)",
    6: "Jaws (1975)", 7: "Scream (1996)", 8: "Titanic (1997)", 9: "Casablanca (1942)", 10: "Frozen",
    11: "Aliens (1986)", 12: "Speed (1994)",
}  # fmt: skip
LIKED = ("I love @{} !", "yes, @{} was great", "@{} is one of my favorites")
HATED = ("I hate @{} , it was boring", "@{} was awful, I did not like it")


def dialogue(number, seeker, recommender, messages, forms=None):
    """A raw dialogue; `messages` (True for the seeker, text), `forms` movie -> (suggested, seen, liked)."""
    named = {int(w[1:]) for _, text in messages for w in text.split() if w[0] == "@" and w[1:].isdigit()}
    questions = {
        str(movie): dict(zip(("suggested", "seen", "liked"), labels, strict=True))
        for movie, labels in (forms or {}).items()
    }
    return {
        "conversationId": str(number),
        "initiatorWorkerId": seeker,
        "respondentWorkerId": recommender,
        "messages": [
            {
                "messageId": place,
                "senderWorkerId": seeker if own else recommender,
                "timeOffset": place,
                "text": text,
            }
            for place, (own, text) in enumerate(messages)
        ],
        "movieMentions": {str(movie): TITLES[movie] for movie in named if movie in TITLES},
        "initiatorQuestions": questions or [],
        "respondentQuestions": questions or [],
    }


def random_dialogues(first, count, seekers, seed):
    """Raw dialogues whose forms say what the texts say; a recommender answers a film with the next one."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(first, first + count):
        seeker = int(rng.choice(seekers))
        messages, forms = [(False, "Hello, what do you like?")], {}
        for movie in rng.choice(list(TITLES), size=2, replace=False).tolist():
            likes = rng.random() < 0.7
            messages.append((True, str(rng.choice(LIKED if likes else HATED)).format(movie)))
            forms[movie] = (0, 1, int(likes))
            offered = movie % len(TITLES) + 1
            messages.append((False, f"Have you seen @{offered} ? It is a good comedy"))
            if offered not in forms:
                forms[offered] = (1, 0, 1)
            messages.append((True, "No, but it sounds great, I will watch it"))
        if number % 2:  # the dialogue ends with a recommendation
            offered = int(rng.choice(list(TITLES)))
            messages.append((False, f"Or @{offered} ?"))
            forms.setdefault(offered, (1, 2, 2))
        made.append(dialogue(number, seeker, 1000 + number, messages, forms))
    return made


def write_lines(path, dialogues):
    path.write_text("".join(json.dumps(each) + "\n" for each in dialogues))
    return path


def loaded(folder, train=60, test=30, seed=0):
    """Dialogues with a training and a test split of other seekers, as `load` gives them."""
    files = {
        "train": write_lines(folder / "train.jsonl", random_dialogues(1, train, range(1, 9), seed)),
        "test": write_lines(folder / "test.jsonl", random_dialogues(1001, test, range(11, 15), seed + 1)),
    }
    tables = dialogue_formats.read_redial(files)
    return Dialogues.of("toy", tables)
