"""Words that may stand for each other in any of our sentences, whatever the world.

Training draws among them anew each time it reads a sentence, so that it meets more ways to say a thing than were
written, and learns from the sentence and not from the one rare word that gives it away. A line is a group; a longer
phrase is found before a shorter one.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

# What ends in * is only put in, never taken out: "over the" also stands in "fallen over the edge". What ends in $ is
# only taken out at the end of a clause: not in "closer to the left edge".
GROUPS = """
is not | isn't
has not | hasn't
does not | doesn't
are not | aren't
do not | don't
did not | didn't
should not | shouldn't | must not
nowhere near | far from | anything but
straight up | vertically up | directly up
straight down | vertically down | directly down
upwards | upward
downwards | downward
above the | over the* | higher than the
below the | under the* | beneath the | lower than the
nearly | almost
slightly | a little | a bit | somewhat
strongly | heavily | very far
completely | fully | entirely | totally
exactly | precisely | perfectly
upright | erect
tilted | leaning | inclined | slanted
tilts | leans | slants
fallen over | toppled over | tipped over
hangs | dangles
hanging | dangling
points | aims
pointing | aiming
at the bottom | at the lowest point | at the very bottom
at the top | at the highest point | at the very top
keep the | hold the
picture | image | frame
middle | centre | center
halfway | half way | midway
is at | stands at | sits at
is on | stands on | sits on
reached | got to | arrived at
close to | near
next to | beside
left side | left half | left-hand side
right side | right half | right-hand side
to the left$ | towards the left$ | leftwards
to the right$ | towards the right$ | rightwards
the tip | the free end | the far end | the outer end
the pivot | the axle | the hinge
raised | lifted
stretched | extended
straight line | single line
we want | the goal is to have | the aim is to have
we see | one sees | you see
"""

_CLAUSE_ENDS = r"(?=$|[,:?]| of\b| and\b| or\b| but\b)"


@cache
def _table() -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    options: dict[str, tuple[str, ...]] = {}
    for line in filter(None, GROUPS.strip().splitlines()):
        phrases = [phrase.strip() for phrase in line.split("|")]
        group = tuple(phrase.rstrip("*$") for phrase in phrases)
        options |= {phrase: group for phrase in phrases if not phrase.endswith("*")}
    longest_first = sorted(options, key=len, reverse=True)
    patterns = (re.escape(phrase.rstrip("$")) + r"\b" + _CLAUSE_ENDS * phrase.endswith("$") for phrase in longest_first)
    pattern = re.compile(r"\b(?:" + "|".join(patterns) + ")")
    return pattern, {phrase.rstrip("$"): group for phrase, group in options.items()}


def exchanged(text: str, rng: np.random.Generator, chance: float) -> str:
    """Each phrase of the table, with this chance, by another of its group."""
    pattern, options = _table()

    def draw(match: re.Match[str]) -> str:
        if rng.random() >= chance:
            return match[0]
        group = options[match[0]]
        return group[rng.integers(len(group))]

    return pattern.sub(draw, text)


def synonyms() -> list[str]:
    return [phrase.strip(" *$") for line in GROUPS.strip().splitlines() for phrase in line.split("|")]
