"""Configs: typed, frozen and strict; the docstring under a field is its line in --help."""

from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt

ALGORITHMS = ("ppo", "dqn", "sac")
"""What a config calls their settings; their scripts are train_NAME.py."""


@dataclass(frozen=True)
class EnvConfig:
    """The environment."""

    id: str
    """Gymnasium id, e.g. LunarLander-v3, or module:id for an env that an import registers."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of gymnasium.make, e.g. '{gravity: -5.0}'; render_mode is set for you."""
    n_envs: PositiveInt = 8
    """Copies that step side by side; the reward model scores their frames as one batch."""
    vec: Literal["dummy", "subproc"] = "dummy"
    """All envs in this process, or one worker process each (for envs that are slow to step or render)."""
    start_method: Literal["fork", "spawn", "forkserver"] | None = None
    """How workers start; null is SB3's choice."""
    horizon: PositiveInt | None = None
    """Training episodes last exactly this long, whatever the env says, because an early end leaks the
    task. null keeps the env's own ends. Evaluation always keeps them."""
    reset_options: dict[str, Any] = field(default_factory=dict)
    """options= of every training reset, e.g. '{low: -1.2, high: 0.6}' starts MountainCar anywhere.
    Evaluation resets without them."""
    rescale_obs: bool = False
    """Map bounded observations to [-1, 1], in training and in evaluation: the same numbers for every run,
    where normalize.obs depends on what has been seen."""

    def __post_init__(self) -> None:
        if "render_mode" in self.kwargs:
            raise ValueError("env.kwargs holds render_mode, which is set for you: leave it out")


# Of RewardConfig: what is made of CLIP's reward, and when.
_OPTIONS = (
    "goal_weights",
    "negative_prompts",
    "temperature",
    "scale",
    "shift",
    "standardize",
    "potential",
    "env_weight",
    "render_every",
    "deferred",
)


@dataclass(frozen=True)
class RewardConfig:
    """The reward: CLIP's, or a constant as a control."""

    goal_prompts: list[str] | str
    """What the agent shall bring about; a sentence or several."""
    baseline_prompts: list[str] | str | None = None
    """What the picture shows anyway; needed where alpha is above 0."""
    encoder: str = "embedded"
    """"embedded", a name of OpenAI's clip ("ViT-B/32"), "open_clip:NAME/TAG", or a path to a checkpoint."""
    alpha: ClosedUnitInterval = 0.5
    """Strength of the goal-baseline regularisation; 0 is the plain cosine."""
    device: str = "auto"
    """Of the reward model, e.g. cpu, cuda:1, mps."""
    download_root: str | None = None
    """The folder of released weights, where they are not in their library's own."""
    dtype: str = "auto"
    """Of the encoder: float32, bfloat16, float16."""
    resize_mode: Literal["squash", "crop", "pad"] | None = None
    """How a frame becomes a square; null is the encoder's own way."""
    normalize_prompt_mean: bool = False
    """Scale the mean embedding of several prompts to length 1."""
    micro_batch_size: PositiveInt = 64
    """Most frames on the device at once."""
    goal_weights: list[float] | None = None
    """One a goal prompt: each is a goal of its own, and the sum of w_k R_k is paid (WeightedGoals); null averages the
    sentences, as ways to say one goal."""
    negative_prompts: list[str] | None = None
    """Pay the goal's probability in a softmax over these and itself (SoftmaxReward), in place of eq. 3."""
    temperature: PositiveFloat | None = None
    """Of that softmax; larger ones pay more evenly. null is the encoder's own, from its training."""
    scale: float = 1.0
    """Pay scale * R + shift; R differs by a few hundredths between frames."""
    shift: float = 0.0
    """What is added after scaling; it changes what surviving is worth where episodes end early."""
    standardize: bool = False
    """Pay (R - mean) / std over all rewards so far (Standardize), in place of scale and shift."""
    potential: bool = False
    """Pay gamma R(s') - R(s), with the algorithm's gamma, after all of the above: for coming closer, not for being
    near."""
    env_weight: float = 0.0
    """Add this much of the env's own reward, last of all. CLIP returns, which choose policy.zip, the film and
    vlmrm-wrap sweep are of R, scaled and shifted: without it, potential and standardize."""
    render_every: PositiveInt = 1
    """Draw and score every k-th frame and pay for it until the next; also an episode's first and last step."""
    deferred: bool = False
    """Score full micro-batches while the envs step on, for large encoders on a GPU; the same rewards."""
    constant: float | None = None
    """Control: pay this every step in place of CLIP's reward. Nothing can be learnt from it; where a
    policy improves nevertheless, the ends of the episodes have leaked the task. scale and the other options have no
    effect then."""
    env_reward: bool = False
    """Control: train on the env's own reward, to see what is reached with it under the same settings, without
    scale and the other options."""

    def __post_init__(self) -> None:
        if self.env_reward and self.constant is not None:
            raise ValueError("reward.env_reward and reward.constant are both set: a run has one reward")
        if self.scale == 0:
            raise ValueError("reward.scale is 0, and every reward would be the same; required: any other number")
        if self.goal_weights is not None and self.negative_prompts is not None:
            raise ValueError("reward.goal_weights and reward.negative_prompts are both set: leave one of them out")
        if self.temperature is not None and self.negative_prompts is None:
            raise ValueError(
                f"reward.temperature is {self.temperature}, and there is no softmax that it could be of: give "
                "reward.negative_prompts, or leave it out"
            )
        if self.standardize and (self.scale, self.shift) != (1.0, 0.0):
            raise ValueError("reward.standardize undoes reward.scale and reward.shift: leave one or the other out")
        if self.control is not None:  # a configuration's options are CLIP's, and its control is run with it
            for name in _OPTIONS:
                object.__setattr__(self, name, getattr(type(self), name))

    @property
    def control(self) -> str | None:
        """The name of the control, None for CLIP's reward."""
        return "env" if self.env_reward else None if self.constant is None else "constant"


@dataclass(frozen=True)
class NormalizeConfig:
    """SB3's VecNormalize, outside the reward wrapper."""

    obs: bool = False
    """Scale observations by their running mean and variance."""
    reward: bool = False
    """Divide rewards by the running standard deviation of their discounted sum."""


@dataclass(frozen=True)
class EvaluationConfig:
    """The true return: the unmodified env, its own ends, no CLIP, a deterministic policy."""

    episodes: PositiveInt = 20
    """Episodes, seeded evaluation.seed, evaluation.seed + 1, ..."""
    seed: NonNegativeInt = 10_000
    """Far from training's seeds."""
    max_steps: PositiveInt = 10_000
    """Where an env that never ends by itself is cut off."""
    video: bool = True
    """Film the first of these episodes, with the reward drawn on every frame."""


@dataclass(frozen=True)
class RunConfig:
    """The run."""

    env: EnvConfig
    reward: RewardConfig
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: NonNegativeInt = 0
    """Of envs, policy and exploration: the same seed repeats the run on the same machine."""
    total_steps: PositiveInt = 100_000
    """Env steps, all copies together; rounded up to whole rollouts (ppo.n_steps, dqn.train_freq or
    sac.train_freq times env.n_envs). What follows the total (ppo.decay, dqn.exploration_fraction) makes a run that goes
    on with more steps another than one that had them from the beginning."""
    save_every: PositiveInt = 10_000
    """Env steps between two saves of all that --resume needs, a replay buffer included; also saved when the
    training is stopped or ends."""
    window: PositiveInt = 16
    """Finished episodes over which returns are averaged, for the curves and the choice of the checkpoint."""
    threads: PositiveInt = 1
    """Of torch; with small networks one is fastest."""
    out: str = "runs"
    """The folder of the run folders."""
    name: str | None = None
    """The run folder, which must not exist yet; null: ENV-seedN, with -2, -3, ... where that exists."""


@dataclass(frozen=True)
class OffPolicyConfig:
    """What DQN and SAC have in common, by SB3's names."""

    policy: Literal["MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = "MlpPolicy"
    """MultiInputPolicy for dict observations, CnnPolicy for pictures."""
    buffer_size: PositiveInt = 1_000_000
    """Steps that the replay buffer holds, all copies of the env together."""
    learning_starts: NonNegativeInt = 100
    """Env steps of random actions before the first update."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    gradient_steps: int = 1
    """Of an update; -1 takes as many as env steps since the last one."""
    device: str = "cpu"
    """Of the policy; small networks are fastest on the CPU."""

    def __post_init__(self) -> None:
        if self.gradient_steps < 1 and self.gradient_steps != -1:
            raise ValueError(f"gradient_steps is {self.gradient_steps}; required: at least 1, or -1")


def usage(prog: str) -> str:
    return f"{prog} [--config FILE] [--FIELD VALUE ...]\n       {prog} --resume RUN [--total_steps STEPS]"


def make_parser(config_class: type, prog: str, description: str) -> ArgumentParser:
    """A command line with one option per field of ``config_class``, and ``--config FILE``."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog, usage(prog), description, allow_abbrev=False)
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file with some or all of the fields")
    # A heading, not an option: of an option YAML files could have the name.
    parser.add_argument_group("a run that goes on", "--resume RUN: go on in this run folder, with its settings")
    parser.add_class_arguments(config_class)
    return parser


def instantiate(parser: ArgumentParser, parsed: Namespace) -> Any:
    """The config of what was parsed; a value out of range leaves by ``parser.error``."""
    try:
        return parser.instantiate(parsed)
    except ValueError as error:
        parser.error(str(error))


def read_settings(file: Path) -> dict[str, Any]:
    """The YAML file's fields, unchecked; ValueError if it holds none."""
    try:
        settings = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
    if not isinstance(settings, dict):
        found = "empty" if settings is None else f"no YAML of fields, but {str(settings)[:40]!r}"
        raise ValueError(f"{file} is {found}; required: a configuration of a training, such as those in configs/")
    return settings


def algorithm_of(settings: dict[str, Any]) -> str | None:
    """Of which of ``ALGORITHMS`` these settings are; None if all are of no algorithm's own."""
    return next((name for name in ALGORITHMS if name in settings), None)


def differences(then: RunConfig, now: RunConfig) -> list[tuple[str, Any, Any]]:
    """Name, value then and value now of each field that differs; one sentence is a list of one."""
    before, after = _flat(vars(then)), _flat(vars(now))
    pairs = [(name, before.get(name, "not set"), after.get(name, "not set")) for name in before | after]
    return [(name, a, b) for name, a, b in pairs if _listed(a) != _listed(b)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"env": {"id": 1}}`` -> ``{"env.id": 1}``."""
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        value = asdict(value) if is_dataclass(value) else value
        fields |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return fields
