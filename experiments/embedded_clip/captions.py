"""What can be said about the worlds: a small grammar that writes captions and knows what they mean.

Every caption comes with its meaning in numbers: the family of worlds it speaks of, and targets,
each an attribute of worlds.py, the value it should have, and how much it matters. `log_likelihood`
turns a caption and a state into "how true is this": 0 is perfectly true, each unit a factor e less
so.

Captions that only name the world ("cart and pole") have no targets and an offset of -2: a specific
caption that fits beats them, one that doesn't fit loses to them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from worlds import ATTRIBUTES, COLUMN, FAMILIES, FAMILY_SHARE, VALLEY_X, warp_degrees

Array = NDArray[Any]

# The presets of the library (goal, baseline). These exact sentences are never trained on, so that
# the evaluation measures sentences the model has not read.
PRESETS = {
    "cartpole": ("pole vertically upright on top of the cart", "pole and cart"),
    "mountain_car": (
        "a car at the peak of the mountain, next to the yellow flag",
        "a car in the mountain",
    ),
    "pendulum": ("the pendulum pointing straight up", "a pendulum"),
    "acrobot": ("the two-link arm swung up high above the line", "a two-link arm"),
}
_NEVER_TRAINED = {sentence for pair in PRESETS.values() for sentence in pair}

WRONG_FAMILY = -12.0  # log-likelihood of a caption about another world


class Caption(NamedTuple):
    """`family` None: it could be said of any picture. Targets: (attribute, value, weight)."""

    text: str
    family: str | None
    targets: tuple[tuple[str, float, float], ...] = ()
    offset: float = 0.0


@dataclass(frozen=True)
class CaptionBatch:
    """n captions as arrays; `family` holds indices into FAMILIES, -1 for any."""

    texts: list[str]
    family: Array  # (n,) int
    values: Array  # (n, len(ATTRIBUTES)) float32
    weights: Array  # (n, len(ATTRIBUTES)) float32, 0 where the caption says nothing
    offsets: Array  # (n,) float32


def log_likelihood(attributes: Array, family: Array, captions: CaptionBatch) -> Array:
    """How true each caption is of each state, (m, n), for states with `attributes` (m, k).

    The distance is rounded off within about 0.14 of its target, where states look the same.
    """
    gap = attributes[:, None] - captions.values[None]
    distance = np.sqrt(gap**2 + 0.02) - np.sqrt(0.02)
    likelihood = captions.offsets[None] - (distance * captions.weights[None]).sum(-1)
    other = speaks_of_another(family, captions)
    return np.where(other, WRONG_FAMILY, likelihood).astype(np.float32)


def speaks_of_another(family: Array, captions: CaptionBatch) -> Array:
    """(m, n) bool: the caption is about another family than the state's."""
    foreign: Array = (family[:, None] != captions.family[None]) & (captions.family[None] >= 0)
    return foreign


class Writer:
    """Draws from the grammar. The words live in the tables below, the sentences in the methods."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def caption(self, family: str) -> Caption:
        caption: Caption = getattr(self, f"_{family}")()
        prefix = self._pick(PREFIXES) + " " if self._chance(0.4) else ""
        return caption._replace(text=_tidy(prefix + caption.text))

    def _cartpole(self) -> Caption:
        kind = self._rng.random()
        if kind < 0.10:
            return Caption(self._pick(CARTPOLE_NAMES), "cartpole", (("cart_seen", 1, 1.0),), -2)
        if kind < 0.13:
            return Caption(self._pick(CART_GONE), "cartpole", (("cart_seen", 0, 3.0),))
        seen = ("cart_seen", 1.0, 2.5)
        if kind < 0.40:
            place, target = self._cart_place(weight=2.0)
            return Caption(self._fill(CART_SENTENCES, place=place), "cartpole", (seen, target))
        how, target = self._pole_angle()
        text = self._fill(POLE_SENTENCES, how=how, pole=self._pole(), on=self._pick(ON_CART))
        if self._chance(0.15):
            place, cart_target = self._cart_place(weight=1.5)
            return Caption(f"{text}, {place}", "cartpole", (seen, target, cart_target))
        return Caption(text, "cartpole", (seen, target))

    def _pole(self) -> str:
        return self._pick(ARTICLES) + self._pick(POLES)

    def _cart_place(self, weight: float) -> tuple[str, tuple[str, float, float]]:
        x, phrases = self._pick(CART_PLACES)
        return self._pick(phrases), ("cart_x", x / 0.8, weight)

    def _pole_angle(self) -> tuple[str, tuple[str, float, float]]:
        """A phrase for the pole's angle, and its target."""
        kind = self._rng.random()
        if kind < 0.36:
            degrees, how, sided = 0.0, self._pick(UPRIGHT), 0.0
        elif kind < 0.48:
            degrees = float(self._rng.integers(1, 61))
            how, sided = self._fill(DEGREES, n=f"{degrees:.0f}"), 1.0
        else:
            degrees, phrases = self._pick(TILTS)
            how, sided = self._pick(phrases), 0.7 if degrees < 170 else 0.0
        if not self._chance(sided):
            return how, ("pole_tilt", float(warp_degrees(degrees, fine=5)), 2.0)
        side = self._pick((-1, 1))
        lean = side * float(warp_degrees(degrees, fine=5))
        return f"{how} {self._pick(SIDES[side])}", ("pole_lean", lean, 2.0)

    def _mountain_car(self) -> Caption:
        kind = self._rng.random()
        car = self._pick(ARTICLES) + self._pick(CARS)
        if kind < 0.12:
            return Caption(self._pick(MOUNTAIN_CAR_NAMES), "mountain_car", (), -2)
        if kind < 0.42:
            place = self._fill(SUMMIT, hill=self._pick(HILLS))
            text = self._fill(FLAG_SENTENCES, car=car, place=place, flag=self._pick(BY_FLAG))
            return Caption(text, "mountain_car", (("car_progress", 0.0, 1.3),))
        if kind < 0.47:
            height, phrases = self._pick(HEIGHTS)
            target = ("car_height", height / 0.4, 1.0)
            return Caption(f"{car} {self._pick(phrases)}", "mountain_car", (target,), -0.5)
        x, phrases = self._pick(CAR_PLACES)
        text = car + self._pick((" is ", " ", " ")) + self._pick(phrases)
        if x < 0 and self._chance(0.15):
            text += ", " + self._pick(FAR_FROM_FLAG)
        return Caption(text, "mountain_car", (("car_x", x / 0.25, 1.3),))

    def _pendulum(self) -> Caption:
        pendulum = self._pick(ARTICLES) + self._pick(PENDULUMS)
        if self._chance(0.15):
            return Caption(self._pick(PENDULUM_NAMES), "pendulum", (), -2)
        degrees, phrases = PENDULUM_TILTS[0] if self._chance(0.3) else self._pick(PENDULUM_TILTS)
        text = pendulum + self._pick((" is ", " ", " ")) + self._pick(phrases)
        tilt = ("pendulum_tilt", float(warp_degrees(degrees, fine=10)), 1.5)
        if not 10 < degrees < 170 or self._chance(0.5):
            return Caption(text, "pendulum", (tilt,))
        side = self._pick((-1, 1))
        offset = ("pendulum_side", side * 2 * float(np.sin(np.deg2rad(degrees))), 1.0)
        return Caption(f"{text} {self._pick(SIDES[side])}", "pendulum", (tilt, offset))

    def _acrobot(self) -> Caption:
        kind = self._rng.random()
        arm = self._pick(ARTICLES) + self._pick(ARMS)
        if kind < 0.15:
            return Caption(self._pick(ACROBOT_NAMES), "acrobot", (), -2)
        verb = self._pick((" is ", " ", " "))
        if kind < 0.27:
            bend, phrases = self._pick(FOLDS)
            return Caption(arm + verb + self._pick(phrases), "acrobot", (("arm_fold", bend / 0.6, 1.0),))
        height, phrases = TIP_HEIGHTS[0] if self._chance(0.3) else self._pick(TIP_HEIGHTS)
        text, tip = arm + verb + self._pick(phrases), ("tip_height", height / 0.5, 1.3)
        if self._chance(0.8):
            return Caption(text, "acrobot", (tip,))
        side = self._pick((-1, 1))
        target = ("arm_side", side * 1.2 / 0.6, 0.7)
        return Caption(f"{text}, {self._pick(SIDES[side])}", "acrobot", (tip, target))

    def _pick(self, options: Sequence[Any]) -> Any:
        return options[self._rng.integers(len(options))]

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def _fill(self, templates: Sequence[str], **parts: str) -> str:
        template: str = self._pick(templates)
        return template.format(**parts)


def write_captions(rng: np.random.Generator, n: int, *, held_out: bool = False) -> CaptionBatch:
    """n captions, families in the proportions of FAMILY_SHARE, 2 % of them about nothing at all.

    `held_out` chooses the tenth of all sentences (by checksum) that training never sees.
    """
    writer, shares = Writer(rng), list(FAMILY_SHARE.values())
    captions: list[Caption] = []
    while len(captions) < n:
        if rng.random() < 0.02 and not held_out:
            caption = Caption(ANY_PICTURE[rng.integers(len(ANY_PICTURE))], None, (), -4)
        else:
            caption = writer.caption(FAMILIES[rng.choice(len(FAMILIES), p=shares)])
        if is_held_out(caption.text) == held_out:
            captions.append(caption)
    return _as_batch(captions)


def is_held_out(text: str) -> bool:
    """Whether training never sees this sentence: the presets, and a tenth of all others."""
    return text in _NEVER_TRAINED or zlib.crc32(text.encode()) % 10 == 0


def taught_words(texts: Sequence[str]) -> list[str]:
    """The words of these captions, sorted, without numbers."""
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})


def _as_batch(captions: list[Caption]) -> CaptionBatch:
    values = np.zeros((len(captions), len(ATTRIBUTES)), np.float32)
    weights = np.zeros_like(values)
    for row, caption in enumerate(captions):
        for attribute, value, weight in caption.targets:
            values[row, COLUMN[attribute]] = value
            weights[row, COLUMN[attribute]] = weight
    return CaptionBatch(
        texts=[caption.text for caption in captions],
        family=np.array([-1 if c.family is None else FAMILIES.index(c.family) for c in captions]),
        values=values,
        weights=weights,
        offsets=np.array([caption.offset for caption in captions], np.float32),
    )


def _tidy(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace(" ,", ",").strip(" ,")


def _any(phrases: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in phrases.split("|"))


# --- Words shared by the worlds ------------------------------------------------------------------
# No caption says "not" or "no": the model would not understand them, and should warn of them.
ARTICLES = ("", "a ", "the ", "the ")
PREFIXES = _any("a photo of | an image of | a picture of | a frame showing | we can see | there is")
SIDES = {
    -1: _any("to the left | to the left side | towards the left | leftwards"),
    1: _any("to the right | to the right side | towards the right | rightwards"),
}
ANY_PICTURE = _any(
    "an image | a picture | a screenshot | a frame of a video game | a simple drawing | something"
    " | a scene on a white background | a rendering of a simulation"
)

# --- CartPole ------------------------------------------------------------------------------------
CARTPOLE_NAMES = _any(
    "a pole and a cart | cart and pole | the pole and the cart | a cart with a pole | a cart pole"
    " | cartpole | the cartpole environment | a pole attached to a cart | the cart and its pole"
    " | an inverted pendulum on a cart | a black cart with a brown pole | a pole on a cart"
    " | stick and cart | pole, cart | pole with cart | the cart pole system | a pole and cart"
)
CART_GONE = _any(
    "the cart has left the screen | the cart is out of view | the cart is outside of the image"
    " | an empty track | a cart out of sight | just an empty line | the cart has gone"
)
CART_PLACES = (
    (0.0, _any("in the middle of the track | in the middle | at the center of the screen"
               " | in the centre | in the center")),
    (-0.9, _any("left of the middle | slightly left of the center | a bit to the left of the centre"
                " | a little left of the center")),
    (0.9, _any("right of the middle | slightly right of the center"
               " | a bit to the right of the centre | a little right of the center")),
    (-1.6, _any("on the left | on the left side of the track | on the left half of the screen"
                " | on the left side")),
    (1.6, _any("on the right | on the right side of the track | on the right half of the screen"
               " | on the right side")),
    (-2.3, _any("at the far left | at the left edge | near the left border of the screen"
                " | at the left end of the track")),
    (2.3, _any("at the far right | at the right edge | near the right border of the screen"
               " | at the right end of the track")),
)  # fmt: skip
CART_SENTENCES = _any(
    "cart {place} | a cart {place} | the cart is {place} | the cart stands {place}"
    " | the cart and its pole are {place} | the cart with the pole is {place}"
    " | a black cart {place}"
)
POLES = _any("pole | pole | pole | stick | brown pole | wooden pole | beam | rod | brown stick")
ON_CART = (
    "",
    *_any(
        "on top of the cart | on top of a cart | on the cart | on a cart | above the cart"
        " | over the cart | attached to the cart | mounted on the cart | on top of the black cart"
        " | on the trolley"
    ),
)
UPRIGHT = _any(
    "vertically upright | upright | vertical | perfectly vertical | perfectly upright | straight up"
    " | standing straight up | standing upright | standing up | pointing straight up | balanced"
    " | perfectly balanced | balanced upright | balanced vertically | in an upright position"
    " | erect | completely upright | exactly vertical | perfectly straight | standing perfectly straight"
)
TILTS = (
    (2, _any("almost upright | nearly vertical | tilted a tiny bit | barely tilted"
             " | leaning very slightly")),
    (5, _any("slightly tilted | leaning slightly | tilted a little | leaning a bit"
             " | slightly off vertical | a bit inclined")),
    (9, _any("tilted | leaning | inclined | somewhat tilted | leaning over")),
    (16, _any("clearly tilted | clearly leaning | quite tilted | leaning a lot | tilting a lot")),
    (30, _any("strongly tilted | leaning far | leaning very far | tilted far | heavily inclined")),
    (48, _any("falling | falling down | half fallen | diagonal | at a diagonal angle"
              " | tilted diagonally")),
    (85, _any("horizontal | lying flat | lying down | fallen over | lying horizontally"
              " | toppled over")),
    (130, _any("hanging diagonally | pointing diagonally down"
               " | below the cart, pointing diagonally down")),
    (178, _any("hanging down | hanging straight down | upside down | pointing straight down"
               " | hanging below the cart | pointing down")),
)  # fmt: skip
DEGREES = _any(
    "tilted {n} degrees | leaning {n} degrees | tilted by {n} degrees | inclined by {n} degrees"
    " | at an angle of {n} degrees"
)
POLE_SENTENCES = _any(
    "{pole} {how} | {pole} {how} {on} | {pole} {on} {how} | {pole} is {how} | {pole} {on} is {how}"
    " | {pole} is {how} {on} | {pole} {on}, {how} | keep {pole} {how} | cart with {pole} {how}"
    " | a cart with its pole {how} | the cart has {pole} that is {how} | {pole} stays {how} {on}"
)

# --- MountainCar ---------------------------------------------------------------------------------
MOUNTAIN_CAR_NAMES = _any(
    "a car in the mountains | the car in the mountain | car in a mountain | a car and a mountain"
    " | a car, a mountain and a flag | car and flag | mountain car | the mountain car environment"
    " | a car driving in the mountain | a vehicle in the mountain | a small car in the mountain"
    " | hills, a flag and a car | a hilly landscape with a car | a car on a mountain road"
)
CARS = _any("car | car | car | small car | black car | little car | vehicle | cart with wheels")
HILLS = _any("mountain | mountain | hill | right hill | right mountain")
SUMMIT = _any(
    "at the peak of the {hill} | at the top of the {hill} | on top of the {hill} | on the summit"
    " | on the summit of the {hill} | at the very top of the {hill} | on the peak | at the summit"
    " | on the mountain top"
)
BY_FLAG = _any(
    "next to the yellow flag | next to the flag | beside the yellow flag | beside the flag"
    " | near the yellow flag | at the flag | at the goal | reaching the flag | touching the flag"
    " | right at the yellow flag | close to the flag | by the goal flag"
)
FLAG_SENTENCES = _any(
    "{car} {place}, {flag} | {car} {place} {flag} | {car} {place} and {flag}"
    " | {car} is {place}, {flag} | {car} parked {place}, {flag} | {car} {place}"
    " | {car} is {place} | {car} {flag} | {car} is {flag} | {car} standing {flag} | {car} reached the flag {place}"
)
FAR_FROM_FLAG = _any("far away from the flag | far from the yellow flag | far from the goal")
HEIGHTS = (
    (1.0, _any("high up | high above the valley | high on a hill")),
    (-1.0, _any("low down | at low altitude | deep down")),
)
CAR_PLACES = (
    (0.2, _any("high up on the right slope | near the top of the right slope | close to the summit"
               " | almost at the top | shortly before the flag")),
    (-0.05, _any("on the right slope | halfway up the right slope | climbing the right hill"
                 " | in the middle of the right slope | halfway up to the flag")),
    (-0.3, _any("low on the right slope | a bit right of the valley"
                " | starting up the right slope")),
    (VALLEY_X, _any("in the valley | at the bottom of the valley | down in the valley"
                    " | at the lowest point | at the foot of the mountain | at the bottom"
                    " | between the two hills")),
    (-0.75, _any("low on the left slope | a bit left of the valley | starting up the left slope")),
    (-0.95, _any("on the left slope | halfway up the left slope | climbing the left hill"
                 " | in the middle of the left slope")),
    (-1.15, _any("high on the left hill | at the top of the left slope | at the far left"
                 " | at the left edge")),
)  # fmt: skip

# --- Pendulum ------------------------------------------------------------------------------------
PENDULUM_NAMES = _any(
    "pendulum | the pendulum | a red pendulum | the pendulum environment | a swinging pendulum"
    " | a pendulum attached to a pivot | a red rod on a pivot"
)
PENDULUMS = _any("pendulum | pendulum | pendulum | red pendulum | red rod | swinging rod")
PENDULUM_TILTS = (
    (0, _any("pointing straight up | pointing up | pointing upwards | upright | vertically upright"
             " | standing upright | balanced upright | balanced | inverted | at the top")),
    (25, _any("almost upright | tilted slightly from the top | pointing almost upwards | tilted")),
    (55, _any("pointing diagonally up | tilted far | leaning far")),
    (90, _any("horizontal | pointing sideways | lying flat")),
    (130, _any("pointing diagonally down | hanging diagonally")),
    (178, _any("hanging straight down | hanging down | pointing down | pointing downwards"
               " | at the bottom")),
)  # fmt: skip

# --- Acrobot -------------------------------------------------------------------------------------
ACROBOT_NAMES = _any(
    "an acrobot | acrobot | the acrobot environment | a double pendulum | two-link arm"
    " | the two-link arm | a two-link robot arm | a robot arm with two links | two links and a line"
)
ARMS = _any("acrobot | two-link arm | two-link arm | robot arm | two-link robot arm | double pendulum | arm")
TIP_HEIGHTS = (
    (2.0, _any("swung up above the line | swung up high | swinging high above the line"
               " | high above the line | standing upright | pointing straight up | pointing up"
               " | fully raised | with its tip above the horizontal line | swung up to the top")),
    (1.0, _any("reaching the line | touching the line | almost at the line | raised high")),
    (0.0, _any("at medium height | half raised | at the height of the pivot")),
    (-1.0, _any("slightly raised | hanging low | below the line")),
    (-2.0, _any("hanging straight down | hanging down | pointing down | pointing downwards"
                " | at the bottom")),
)  # fmt: skip
FOLDS = (
    (np.pi, _any("folded | bent completely | with folded links")),
    (0.0, _any("stretched out | fully extended | with both links in a straight line")),
)
