"""The command line ``vlmrm-wrap``, also ``python -m vlmrm_wrap``: see a reward before you trust it.

Exit status: 0 fine; 1 the doctor found errors; 2 something is wrong, said in one line on stderr; 130 for Ctrl-C.
Nothing heavy is imported before the arguments are parsed.
"""

import argparse
import json
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one sub-command, by default that of ``sys.argv``, and returns the exit status."""
    options = _parser().parse_args(arguments)
    long_format = warnings.formatwarning
    warnings.formatwarning = lambda text, category, *_: f"{category.__name__}: {_plain(text)}\n"
    try:
        from vlmrm_wrap.insight import commands
        from vlmrm_wrap.screens import quiet_pygame

        quiet_pygame()
        with warnings.catch_warnings():  # of Gymnasium, about what is refused, and told, here
            warnings.filterwarnings("ignore", ".*RGB-array rendering should return")
            status: int = getattr(commands, options.command)(options)
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # an env of the user's, or its render(), can raise anything
        if options.traceback:
            raise
        print(f"error: {_told(error)}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = long_format


def _told(error: Exception) -> str:
    """One line; an error that nobody wrote for users gets its name, and the way to where it came from."""
    from gymnasium.error import Error as GymnasiumError

    text = " ".join(_plain(error).split())
    if text and (isinstance(error, GymnasiumError | ImportError | OSError) or _is_ours(error)):
        return text
    return f"{type(error).__name__}: {text} (vlmrm-wrap --traceback ... shows where)"


def _is_ours(error: Exception) -> bool:
    """Whether a raise statement of this package made it: an env's TypeError says nothing to who did not write it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return Path(where.filename).is_relative_to(Path(__file__).parent) and (where.line or "").startswith("raise")


def _plain(text: object) -> str:
    """Without the colours that Gymnasium gives its warnings."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(text))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if "arguments are required: " in message and "required: -" not in message:
            message += "; before options such as --goal, which take all the words that follow them"
        self.exit(2, f"error: {' '.join(message.split())} ({self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("vlmrm-wrap", description="See a reward before you trust it.")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for add in (_similarity, _landscape, _doctor, _sweep, _video, _label):
        summary = str(add.__doc__)
        sub = commands.add_parser(
            add.__name__.lstrip("_"), help=summary[:1].lower() + summary[1:-1], description=summary
        )
        add(sub)
    return parser


def _similarity(parser: argparse.ArgumentParser) -> None:
    """Cosines and zero-shot probabilities of pictures and sentences."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument("--text", **_SEVERAL, required=True, help="sentences")
    _encoder_options(parser)
    parser.add_argument("--output", metavar="PNG", help="draw a heat map")


def _landscape(parser: argparse.ArgumentParser) -> None:
    """The reward over the states of an env, or along a policy's way, for several alphas at once."""
    _env_options(parser)
    _reward_options(parser)
    parser.add_argument("--alpha", **_SEVERAL, type=float, help="all from one encoding; default: 0 0.5 1")
    parser.add_argument(
        "--state",
        **_SEVERAL,
        default=[],
        metavar="NAME=LOW:HIGH[:COUNT]",
        help="one or two state variables to vary, and NAME=VALUE to fix others; one without a name goes by its index. "
        "Default: what a classic env is about; for other envs frames of a random policy",
    )
    parser.add_argument("--policy", metavar="random|FILE|RUN", help=f"frames along the way of {_POLICY}")
    parser.add_argument("--steps", type=_count, default=200, help="of the policy; default: %(default)s")
    parser.add_argument(
        "--against",
        **_SEVERAL,
        default=[],
        metavar="NAME[=TARGET]",
        help="state variables, or their closeness to a target, whose ranks are compared with those of R",
    )
    parser.add_argument(
        "--output", default="landscape.png", help="default: %(default)s; the numbers go to a .csv beside"
    )


def _doctor(parser: argparse.ArgumentParser) -> None:
    """What is wrong with an env, its frames and the prompts; the exit status is 1 if there are errors."""
    _env_options(parser)
    _reward_options(parser)
    parser.add_argument("--alpha", type=float, help="default: 0.5, or 0 without a baseline")
    parser.add_argument(
        "--steps", type=_count, default=200, help="random steps to look at, 2 at least; default: %(default)s"
    )
    parser.add_argument("--output", default="doctor.png", help="a frame and what CLIP sees of it; default: %(default)s")


def _sweep(parser: argparse.ArgumentParser) -> None:
    """A finished run's rewards for other alphas or prompts, without rendering anything."""
    parser.add_argument("scores", metavar="RUN", help="a run folder, or a file that `vlmrm-wrap video --scores` wrote")
    parser.add_argument("--alpha", **_SEVERAL, type=float, help="default: the run's own for other prompts, else five")
    parser.add_argument("--goal", **_SEVERAL, help="other goal prompts")
    parser.add_argument("--baseline", **_SEVERAL, help="other baseline prompts")
    parser.add_argument("--output", help="a plot; the numbers go to a .csv beside")


def _video(parser: argparse.ArgumentParser) -> None:
    """A film of episodes: the frame, what CLIP sees of it, and the reward's curve."""
    parser.description = f"{_video.__doc__} A run folder knows its env and its reward; what is given here changes them."
    parser.add_argument("policy", metavar="POLICY", help=_POLICY)
    _env_options(parser, required=False)
    _reward_options(parser, required=False)
    parser.add_argument("--alpha", type=float, help="default: the run's, or 0.5, or 0 without a baseline")
    parser.add_argument("--episodes", type=_count, default=1, help="default: %(default)s")
    parser.add_argument("--steps", type=_count, default=500, help="cut an episode off here; default: %(default)s")
    parser.add_argument("--scores", metavar="NPZ", help="keep what the rewards are made of, for `vlmrm-wrap sweep`")
    parser.add_argument("--embeddings", action="store_true", help="keep embeddings in it, for sweeps over prompts")
    parser.add_argument("--output", default="video.mp4", help="default: %(default)s")


def _label(parser: argparse.ArgumentParser) -> None:
    """A sheet of frames of runs for people to label, and the EPIC distance of the reward to their labels."""
    parser.description = (
        f"{_label.__doc__} First `label RUN [RUN ...] --output FOLDER`, which plays the policies of runs with one "
        "reward; then, when FOLDER/labels.csv is filled in, `label FOLDER`."
    )
    parser.add_argument("folders", nargs="+", metavar="RUN|FOLDER", help="run folders, or a folder with labels.csv")
    parser.add_argument("--output", metavar="FOLDER", help="for the pictures and the table to fill in")
    parser.add_argument("--count", type=_count, help="frames, of all runs together; default: 96")
    parser.add_argument("--every", type=_count, help="steps between two frames; default: 10")
    parser.add_argument("--seed", type=_seed, help="of the episodes and the shuffling; default: 0")


_POLICY = (
    "random, the file of a policy that Stable-Baselines3 or sb3-contrib saved, or a run folder with one (only one that "
    "you trust: it can run code)"
)
_SEVERAL: dict[str, Any] = {"nargs": "+", "action": "extend"}  # --goal A B, or --goal A --goal B


def _env_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "env",
        metavar="ENV",
        nargs=None if required else "?",
        help="Gymnasium id, or module:id for an env that an import registers",
    )
    parser.add_argument("--env-kwargs", type=_json_object, metavar="JSON", help="""of gymnasium.make: '{"g": 5}'""")
    parser.add_argument("--horizon", type=_count, help="put FixedHorizon around the env: episodes of this length")
    parser.add_argument("--fast-mujoco", action="store_true", help="draw a MuJoCo env with FastMuJoCoRender")
    parser.add_argument("--seed", type=_seed, default=0, help="default: %(default)s")


def _reward_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--goal", **_SEVERAL, required=required, help="sentences: what the picture shows in the end")
    parser.add_argument("--baseline", **_SEVERAL, help="sentences: what it shows anyway")
    _encoder_options(parser)


def _encoder_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", help='"embedded" (the default), ViT-B/32, open_clip:NAME/TAG, or a path')
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: auto")
    parser.add_argument("--dtype", help="of the image tower: float32, bfloat16, float16; default: auto")
    parser.add_argument("--resize-mode", choices=["squash", "crop", "pad"], help="default: the encoder's own")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; required: a whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}; required: a whole number of at least 0")
    return int(text)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r}; required: an object in JSON, {{...}}")
    return value


if __name__ == "__main__":
    sys.exit(main())
