"""What people say around a sentence, whatever the world: that it is so, that it isn't, that this is so and not that.

Training says it around sentences of its own, drawn anew each time, so that a denial is learnt as such and not only in
the sentences that were written as denials.
"""

from __future__ import annotations

PREFIXES = ("a photo of", "an image of", "a picture of", "a frame showing", "we can see", "this is", "here we see")

# {} is a sentence, without its question mark.
AFFIRMED = (
    "it is true that {}", "it is the case that {}", "{}? yes", "yes, {}", "{}, that is right", "{}, that is so",
    "it is right to say: {}", "right: {}", "exactly this: {}", "we want this: {}", "the goal: {}", "wanted: {}",
    "this is what we want: {}", "make this true: {}", "it isn't false that {}", "nobody can deny: {}",
)  # fmt: skip
DENIED = (
    "it is not true that {}", "it isn't true that {}", "it is not the case that {}", "it isn't the case that {}",
    "{}? no", "no, it isn't so that {}", "it is false that {}", "{}, that is wrong", "{}, that isn't so", "not so: {}",
    "wrong: {}", "the opposite of this: {}", "anything but this: {}", "it would be wrong to say: {}",
    "nobody can say: {}", "we don't want this: {}", "avoid this: {}", "never this: {}",
)  # fmt: skip
# {this} is so; {other} is another sentence, which can't be so at the same time.
CONTRASTED = (
    "{other}? no, {this}", "{other}? wrong, {this}", "not this: {other}, but this: {this}", "{this}, not {other}",
    "{this}, and it isn't true that {other}", "it is not true that {other}, {this}", "not {other} but {this}",
    "{this} rather than {other}", "{this} instead of {other}", "once {other}, now {this}", "{this}, no longer {other}",
)  # fmt: skip


def phrases_around() -> list[str]:
    """All of the above, without a sentence in them."""
    texts = [*PREFIXES, *AFFIRMED, *DENIED, *CONTRASTED]
    return [text.replace("{}", " ").replace("{this}", " ").replace("{other}", " ") for text in texts]
