"""The reward as a landscape: over the states of an env, or along a policy's way, for several alphas at once.

Each frame is encoded once; its two similarities give the reward for every alpha.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.insight.checks import check_env_is_known
from vlmrm_wrap.insight.policies import Act, random_policy
from vlmrm_wrap.insight.states import EnvStates, Grid, env_states, parse_grid
from vlmrm_wrap.insight.tables import prompts_of, rank_correlation, rounded, table, write_csv
from vlmrm_wrap.insight.visits import Log, own_rewards, placed, played, score_frames_of
from vlmrm_wrap.protocols import FrameScores
from vlmrm_wrap.rendering import FrameRenderer, check_renders

if TYPE_CHECKING:
    from vlmrm_wrap.reward_model import CLIPRewardModel

__all__ = ["Landscape", "landscape"]

Array = NDArray[Any]

_SHOWN = 5  # pictures above a sweep of one variable
ENV_REWARD = "env reward"


@dataclass(frozen=True)
class Landscape:
    """``n`` frames in order. ``rewards``: alpha -> float32 ``(n,)``. ``env_rewards``: float64 ``(n,)``.

    ``states``: float64 ``(n, len(names))``, or None where nobody knows them. ``grid``: which of them were varied, or
    None for frames of a policy. ``correlations``: what R is compared with -> alpha -> Spearman's rank correlation,
    NaN where the former is the same everywhere or not finite. ``starts``: where the episodes after the first begin.
    """

    title: str
    rewards: dict[float, NDArray[np.float32]]
    scores: FrameScores
    env_rewards: NDArray[np.float64]
    states: NDArray[np.float64] | None
    names: tuple[str, ...]
    grid: Grid | None
    correlations: dict[str, dict[float, float]]
    thumbnails: tuple[NDArray[np.uint8], ...]
    starts: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        against = [f"~ {name}" for name in self.correlations]
        rows = [
            [
                f"{alpha:g}",
                values.min(),
                values.max(),
                values.std(),
                *[each[alpha] for each in self.correlations.values()],
            ]
            for alpha, values in self.rewards.items()
        ]
        return "\n".join(
            [
                f"{self.title}\n{len(self.env_rewards)} frames; ~ is the rank correlation of R",
                table(["alpha", "min R", "max R", "std R", *against], rows),
                *(["every frame gives the same reward: they don't show what varies"] * self.is_flat),
                *self.notes,
            ]
        )

    @property
    def is_flat(self) -> bool:
        """Whether the frames differ in nothing but the encoder's noise."""
        return all(np.ptp(values) < 1e-5 for values in self.rewards.values())

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """A row a frame: state variables, similarities, R for each alpha, and the env's own reward."""
        columns: dict[str, Array] = {}
        if self.states is not None:
            columns |= {name: self.states[:, index] for index, name in enumerate(self.names)}
        columns |= {"goal_similarity": self.scores.goal_similarity}
        columns |= {"baseline_similarity": self.scores.baseline_similarity}
        columns |= {f"reward_alpha_{alpha:g}": values for alpha, values in self.rewards.items()}
        write_csv(path, {**columns, "env_reward": self.env_rewards})

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Curves over one variable or over steps, maps over two, with some of the frames; PNG or by suffix."""
        from vlmrm_wrap.insight.plotting import save_curves, save_maps

        curves: dict[str, Array] = {f"alpha = {alpha:g}": values for alpha, values in self.rewards.items()}
        if self.grid is not None and len(self.grid.names) == 2:
            first, second = self.grid.axes
            maps = {label: values.reshape(len(first), len(second)) for label, values in curves.items()}
            save_maps(
                path, self.title, (self.grid.names[0], self.grid.names[1]), (first, second), maps, self._extremes()
            )
        elif self.grid is not None:
            name, axis = self.grid.names[0], self.grid.axes[0]
            chosen = np.linspace(0, len(axis) - 1, min(_SHOWN, len(axis))).round().astype(int)
            pictures = [(f"{name} = {rounded(axis[index], 2)}", self.thumbnails[index]) for index in chosen]
            save_curves(path, self.title, name, axis, curves, pictures, [float(axis[index]) for index in chosen])
        else:
            steps = np.arange(len(self.env_rewards))
            save_curves(path, self.title, "step", steps, curves, self._extremes(), breaks=self.starts)

    def _extremes(self) -> list[tuple[str, NDArray[np.uint8]]]:
        """The frames with the lowest, the middle and the highest reward, for the middle one of the alphas."""
        alpha = list(self.rewards)[len(self.rewards) // 2]
        order = np.argsort(self.rewards[alpha], kind="stable")
        chosen = {"lowest": order[0], "median": order[len(order) // 2], "highest": order[-1]}
        return [
            (
                f"{which} R at alpha {alpha:g}: {rounded(self.rewards[alpha][index], 3)}{self._place(index)}",
                self.thumbnails[index],
            )
            for which, index in chosen.items()
        ]

    def _place(self, index: int) -> str:
        if self.grid is None or self.states is None:
            return f"\nstep {index}"
        values = {name: self.states[index, self.names.index(name)] for name in self.grid.names}
        return "\n" + ", ".join(f"{name} {rounded(value, 2)}" for name, value in values.items())


def landscape(
    env: gym.Env[Any, Any],
    model: "CLIPRewardModel",
    *,
    alphas: Sequence[float] = (0.0, 0.5, 1.0),
    states: Sequence[str] = (),
    policy: Act | None = None,
    steps: int = 200,
    against: Sequence[str] = (),
    seed: int = 0,
) -> Landscape:
    """R for each of ``alphas`` over states that are set, or else after each of ``steps`` steps of ``policy``.

    ``states``: NAME=LOW:HIGH or NAME=LOW:HIGH:COUNT for one variable or two, NAME=VALUE for any others; all else is as
    the reset with ``seed`` left it. By default what classic control's tasks are about; no other env has a default.
    ``policy``: from an observation to an action; None is a random one where no states are swept. ``against``: names
    of state variables, NAME=TARGET for the closeness to a value, to compare R with; by default the env's own reward
    (over swept states that of a step from there with a neutral action) and what a classic env's task is about.

    Leaves ``env`` open. ValueError for an unknown variable, an env whose state can't be set, a wrong alpha.
    """
    check_renders(env, "landscape")
    env.reset(seed=seed)
    space = env_states(env)
    wanted = tuple(states) or (space.default_sweep if space is not None and policy is None else ())
    if states and policy is not None:
        raise ValueError("both states and a policy are given; required: one of them, for they give other frames")
    if space is None and (states or against):
        raise ValueError(
            f"{env} has no state that can be read or set: leave the state variables out, for frames of a policy"
        )
    for name in against:  # before anything is drawn
        assert space is not None
        space.values(name, space.read()[None])
    renderer = FrameRenderer(env)
    grid: Grid | None = None
    starts: tuple[int, ...] = ()
    if wanted and space is not None:
        grid = parse_grid(wanted, space)
        title = ", ".join(wanted)
        scores, thumbnails = score_frames_of(model, placed(renderer, space, grid.states))
        visited, env_rewards = grid.states, own_rewards(env, space, grid.states)
    else:
        act, log = policy or random_policy(env, seed), Log()
        title = getattr(act, "name", "given policy")
        scores, thumbnails = score_frames_of(model, played(env, renderer, act, steps, seed, space, log))
        visited, env_rewards, starts = np.array(log.states), np.array(log.rewards, np.float64), tuple(log.starts)
    rewards = {float(alpha): model.rewards_at(alpha, scores) for alpha in alphas}
    known = visited if space is not None else None
    spec = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    notes = [finding.message for finding in check_env_is_known(model.encoder, env)]
    if grid is None and policy is None and space is not None:
        shown = ", ".join(space.names[:4]) + (", ..." if len(space.names) > 4 else "")
        notes.append(f"along a random policy; the state can be swept instead, --state NAME=LOW:HIGH, of {shown}")
    if unpaid := int((~np.isfinite(env_rewards)).sum()):
        notes.append(f"{spec} itself pays NaN or infinity at {unpaid} of these {len(env_rewards)} frames")
    return Landscape(
        title=f"{spec}, {title}\n{prompts_of(model.recipe or {})}",
        rewards=rewards,
        scores=scores,
        env_rewards=env_rewards,
        states=known,
        names=space.names if space is not None else (),
        grid=grid,
        correlations=_correlations(rewards, env_rewards, known, space, against),
        thumbnails=tuple(thumbnails),
        starts=starts,
        notes=tuple(notes),
    )


def _correlations(
    rewards: dict[float, NDArray[np.float32]],
    env_rewards: Array,
    states: Array | None,
    space: EnvStates | None,
    against: Sequence[str],
) -> dict[str, dict[float, float]]:
    values = {ENV_REWARD: env_rewards}
    if states is not None and space is not None:
        values |= {name: space.values(name, states) for name in against or space.measures}
    return {
        name: {alpha: rank_correlation(each, other) for alpha, each in rewards.items()}
        for name, other in values.items()
    }
