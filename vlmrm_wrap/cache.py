"""Frames are not scored twice: an exact, bounded memory from a frame's pixels to its two similarities.

    frame (H, W, 3) uint8 -> 128-bit key -> s.g, s.b, the bits of the frame's first scoring

The key is a cryptographic hash (BLAKE2b) of the whole frame. It is cheap because renders are mostly of flat
colour: where every 8 pixels equal the 8 before, only the places and values where they don't are hashed. The
pixels could be rebuilt from those, so nothing is left out.

Where frames don't repeat, the cache steps aside, and looks again later. Which frames it looks up decides which
are encoded together, and that changes a reward by some 1e-7; so the decision must be the same in every run of
one seed. It rests on the frames alone, by fixed prices in nanoseconds, never on a clock.
"""

import os
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.cache_files import ScoreFile

__all__ = ["CacheInfo", "CacheOption", "FrameCache", "Lookup", "check_cache", "frame_key"]

Frames = NDArray[np.uint8]
Scores = NDArray[np.float32]
CacheOption = bool | str | os.PathLike[str]

MAXSIZE = 2**17  # entries

# Prices in nanoseconds, measured on one thread of a 3.6 GHz AMD EPYC.
_ENCODE = 500_000  # what a hit saves: preprocessing and encoding by "embedded", the cheapest encoder there is
_LOOK_UP = 12_000  # of a frame of no size
_COMPARED, _HASHED = 24, 1  # bytes that take 1 ns
_INCOME = _ENCODE // 100  # a frame: looking up in vain costs 1 % for ever ...
_PURSE = 16 * _ENCODE  # ... and as much as encoding 16 frames each time that it looks again

_KEY, _ENTRY = 16, 24  # bytes
_COUNTS = ("purse", "full", "aside", "hits", "misses", "skipped")

_PERIOD = 3  # words of 8 bytes: 8 pixels, the shortest stretch after which flat colour looks the same


class CacheInfo(NamedTuple):
    """Counts since the model was made, in frames; ``maxsize`` and ``currsize`` in entries.

    ``hits`` were not encoded (duplicates within a batch among them), ``misses`` were looked up and encoded,
    ``skipped`` were encoded without being looked up. ``stepped_aside``: whether that goes on.
    """

    hits: int
    misses: int
    maxsize: int
    currsize: int
    skipped: int
    stepped_aside: bool

    @property
    def hit_rate(self) -> float:
        """Share of all frames that were not encoded; 0.0 before the first."""
        return self.hits / max(1, self.hits + self.misses + self.skipped)


class Lookup(NamedTuple):
    """What :meth:`FrameCache.look_up` found in a batch of ``n`` frames."""

    missing: list[int]
    """The frames to encode, by their places in the batch."""
    keys: list[bytes | None]
    """Their keys; None for a frame that was not looked up."""
    rows: NDArray[np.intp]
    """For each of the n frames its row among the missing; -1 where its scores are known."""
    scores: Scores
    """``(n, 2)``: the known scores, 0 elsewhere."""


class FrameCache:
    """s.g and s.b of the ``maxsize`` frames used last, by :func:`frame_key`; some 180 bytes each.

    ``steps_aside``: whether it may stop looking frames up where they don't repeat. A look-up is paid from a
    purse that a hit and a small income per frame fill again: empty, the cache steps aside; full, it looks
    again. ``patience``: what is in the purse at first, in encodes; a training starts with frames that differ.
    ``file``: read now, and written by :meth:`save` and when this object or the process ends.

    >>> cache, frames = FrameCache(), np.zeros((2, 400, 600, 3), np.uint8)
    >>> lookup = cache.look_up(frames)
    >>> lookup.missing
    [0]
    >>> cache.complete(lookup, np.array([[0.25, 0.5]], np.float32)).tolist()
    [[0.25, 0.5], [0.25, 0.5]]
    >>> cache.look_up(frames).missing
    []
    """

    def __init__(
        self,
        *,
        maxsize: int = MAXSIZE,
        steps_aside: bool = True,
        patience: int = _PURSE // _ENCODE,
        file: ScoreFile | None = None,
    ) -> None:
        self._table: OrderedDict[bytes, bytes] = OrderedDict()  # the one used last is last
        self._maxsize, self._steps_aside, self._file = maxsize, steps_aside, file
        self._purse = self._full = patience * _ENCODE
        self._aside = False
        self._hits = self._misses = self._skipped = 0
        if file is not None:
            self._table.update(list(file.read().items())[-maxsize:])
            # of the table, not of self, which would then never end
            weakref.finalize(self, _save_last, os.getpid(), file, self._table, maxsize)

    @property
    def info(self) -> CacheInfo:
        size = len(self._table)
        return CacheInfo(self._hits, self._misses, self._maxsize, size, self._skipped, self._aside)

    def look_up(self, frames: Frames) -> Lookup:
        """Which of ``frames``, uint8 ``(n, height, width, 3)``, are to be encoded: new ones, each once."""
        n = len(frames)
        found = Lookup([], [], np.full(n, -1), np.zeros((n, 2), np.float32))
        new: dict[bytes, int] = {}
        for place, frame in enumerate(frames):
            key = self._key(frame)
            if key is not None and key in self._table:
                self._table.move_to_end(key)
                found.scores[place] = np.frombuffer(self._table[key], "<f4")
                self._count_hit()
            elif key is not None and key in new:
                found.rows[place] = new[key]
                self._count_hit()
            else:
                found.rows[place] = len(found.missing)
                if key is None:
                    self._skipped += 1
                else:
                    self._misses += 1
                    new[key] = len(found.missing)
                found.missing.append(place)
                found.keys.append(key)
        return found

    def complete(self, lookup: Lookup, encoded: Scores) -> Scores:
        """The scores ``(n, 2)`` of the batch, from those of its missing frames, which are remembered."""
        for key, scores in zip(lookup.keys, encoded, strict=True):
            if key is not None and key not in self._table:  # it may be by now, from a batch in between
                self._table[key] = scores.astype("<f4").tobytes()
        while len(self._table) > self._maxsize:
            self._table.popitem(last=False)
        unknown = lookup.rows >= 0
        lookup.scores[unknown] = encoded[lookup.rows[unknown]]
        return lookup.scores

    def save(self) -> None:
        """Write the file, with what other processes have added to it; OSError if that fails, ValueError without one."""
        if self._file is None:
            raise ValueError("this cache is kept in memory only; cache='FOLDER' keeps it on disk as well")
        self._file.write(self._table, self._maxsize)

    def state_dict(self) -> dict[str, Any]:
        """The entries in their order, as bytes, and the counts: all that decides what is looked up and encoded next."""
        entries = b"".join(key + scores for key, scores in self._table.items())
        return {"entries": entries, **{name: getattr(self, f"_{name}") for name in _COUNTS}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, a :meth:`state_dict`, which takes the place of what is here; ValueError otherwise."""
        if set(state) != {"entries", *_COUNTS} or len(state["entries"]) % _ENTRY:
            raise ValueError(
                f"a state has {', '.join(_COUNTS)} and entries of {_ENTRY} bytes, got {dict(state)!r:.200}"
            )
        entries = state["entries"]
        self._table.clear()
        for at in range(0, len(entries), _ENTRY):
            self._table[entries[at : at + _KEY]] = entries[at + _KEY : at + _ENTRY]
        for name in _COUNTS:
            setattr(self, f"_{name}", state[name])

    def _count_hit(self) -> None:
        self._hits += 1
        self._purse += _ENCODE

    def _key(self, frame: Frames) -> bytes | None:
        """The frame's key, paid for; None while the cache stands aside."""
        if not self._steps_aside:
            return frame_key(frame)[0]
        self._purse = min(self._purse + _INCOME, self._full)
        self._aside = self._purse <= 0 or (self._aside and self._purse < self._full)
        if self._aside:
            self._full = _PURSE
            return None
        key, price = frame_key(frame)
        self._purse -= price
        return key


def frame_key(frame: Frames) -> tuple[bytes, int]:
    """16 bytes for the pixels and the shape of uint8 ``(height, width, 3)``, and their price in nanoseconds.

    A frame is read in words of 8 bytes. Its first three words, and which of the others differ from the third
    before them and what they are, give back all of it. Keys of two frames are equal with a chance of 2^-128.
    """
    pixels = np.ascontiguousarray(frame).reshape(-1)
    words = pixels[: pixels.size // 8 * 8].view(np.uint64)
    first, later, rest = words[:_PERIOD], words[_PERIOD:], pixels[8 * words.size :]
    places = np.flatnonzero(later != words[:-_PERIOD])
    size = 12 * places.size
    flat = size < pixels.size
    key = blake2b(np.array([*frame.shape, places.size if flat else -1], "<i8").data, digest_size=16)
    for part in (first, rest, places.astype("<u4"), later[places]) if flat else (pixels,):
        key.update(part.data)
    return key.digest(), _LOOK_UP + pixels.size // _COMPARED + (size if flat else pixels.size) // _HASHED


def check_cache(cache: Any) -> None:
    """TypeError or ValueError unless it is "auto", True, False or a folder (which need not be there yet)."""
    if not isinstance(cache, bool | np.bool_ | str | os.PathLike):
        raise TypeError(f"cache must be 'auto', True, False or the path of a folder, got {cache!r}")
    if isinstance(cache, bool | np.bool_) or cache == "auto":
        return
    if not os.fspath(cache):
        raise ValueError("cache is '': give the path of a folder, or 'auto', True or False")
    if os.path.isfile(os.path.expanduser(cache)):
        raise ValueError(f"cache is {os.fspath(cache)!r}, a file; required: a folder, for a file per model")


def _save_last(process: int, file: ScoreFile, table: OrderedDict[bytes, bytes], maxsize: int) -> None:
    if os.getpid() != process:  # a fork's copy ends; the original goes on
        return
    try:
        file.write(table, maxsize)
    except OSError as error:
        warnings.warn(f"scores were not saved to {file.path}: {error}", stacklevel=2)
