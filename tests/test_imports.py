"""Who may import whom, and what stays out of memory until it is needed."""

import ast
import pathlib
import subprocess
import sys

import pytest

import vlmrm_wrap

PACKAGE = pathlib.Path(vlmrm_wrap.__file__).parent

# Module (or folder) -> what of this package it may import at its top level.
ALLOWED = {
    "protocols": set(),
    "screens": set(),
    "rendering": {"screens"},
    "workers": {"protocols"},
    "shared_frames": set(),
    "frames": {"protocols", "rendering", "workers", "shared_frames"},
    "standardizing": set(),
    "wrappers": {"protocols", "rendering", "workers", "frames", "standardizing", "wrappers"},
    "tasks": {"rendering", "wrappers", "tasks"},
    "sb3": {  # insight.metrics: numpy only
        *("protocols", "rendering", "workers", "shared_frames", "frames", "wrappers", "sb3", "insight"),
    },
    "reward": {"protocols"},
    "preprocess": {"protocols"},
    "encoders": {"protocols", "encoders"},
    "settings": {"protocols", "encoders", "preprocess", "reward"},
    "streams": {"preprocess"},
    "cache_files": set(),
    "cache": {"cache_files"},
    "similarities": {"preprocess", "encoders", "streams", "cache"},
    "reward_model": {
        *("protocols", "reward", "preprocess", "encoders", "settings", "similarities", "cache", "cache_files"),
    },
    "options": {"protocols", "standardizing"},
    "prompts": {"protocols", "options"},
    "insight": {path.stem for path in PACKAGE.iterdir()},
    "__main__": set(),
}


def top_level_imports(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vlmrm_wrap"):
            yield node.module.removeprefix("vlmrm_wrap").lstrip(".").split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("vlmrm_wrap."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_downwards_only(path):
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if part != "__init__":
        assert set(top_level_imports(path)) <= ALLOWED[part]


@pytest.mark.parametrize(
    "statement",
    [
        "import vlmrm_wrap",
        "import vlmrm_wrap.wrappers.single, vlmrm_wrap.wrappers.vector, vlmrm_wrap.wrappers.horizon, "
        "vlmrm_wrap.wrappers.mujoco, vlmrm_wrap.wrappers.render_every, vlmrm_wrap.wrappers.transform",
        "import vlmrm_wrap.options, vlmrm_wrap.prompts, vlmrm_wrap.insight.metrics",
        "import vlmrm_wrap.frames, vlmrm_wrap.workers, vlmrm_wrap.rendering, vlmrm_wrap.screens, vlmrm_wrap.protocols",
        "import vlmrm_wrap.tasks, vlmrm_wrap.tasks.envs",
        "import vlmrm_wrap.__main__, vlmrm_wrap.insight.commands",
        "from vlmrm_wrap import FrameCapture, FixedHorizon, CLIPRewardWrapper, CLIPRewardVectorWrapper, make_vec",
    ],
)
def test_what_workers_import_loads_nothing_heavy(statement):
    heavy = {"torch", "torchvision", "clip", "open_clip", "stable_baselines3", "mujoco", "matplotlib", "PIL", "pygame"}
    script = f"import sys\n{statement}\nprint(sorted({heavy!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_every_public_name_is_there():
    for name in vlmrm_wrap.__all__:
        assert getattr(vlmrm_wrap, name).__name__ == name
    assert set(vlmrm_wrap.__all__) == set(vlmrm_wrap._HOME) <= set(dir(vlmrm_wrap))


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known():
    with pytest.raises(AttributeError, match=r"'CLIPReward'.*CLIPRewardModel"):
        vlmrm_wrap.CLIPReward  # noqa: B018


def test_public_names_carry_docstrings():
    for name in vlmrm_wrap.__all__:
        assert len(getattr(vlmrm_wrap, name).__doc__ or "") > 60, name


def test_without_stable_baselines_the_pip_line_is_told():
    script = "import sys; sys.modules['stable_baselines3'] = None; import vlmrm_wrap.sb3"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (
        'DependencyNotInstalled: vlmrm_wrap.sb3 needs Stable-Baselines3: pip install "vlmrm-wrap[train]"' in done.stderr
    )
