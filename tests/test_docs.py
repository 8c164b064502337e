"""README and the guides: links lead somewhere, and what is shown runs."""

import ast
import importlib.util
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import yaml
from PIL import Image

from vlmrm_wrap import CLIPRewardWrapper, FrameScores
from vlmrm_wrap.__main__ import _parser
from vlmrm_wrap.insight import checks, doctor

pytest.importorskip("jsonargparse")
pytest.importorskip("stable_baselines3")

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *GUIDES, *sorted((ROOT / "experiments").rglob("*.md"))]


@pytest.fixture(scope="module")
def examples() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_examples", ROOT / "docs" / "run_examples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(\s*([^)\s]+)\)", page.read_text())
    for target in (target for target in targets if not re.match(r"https?:", target)):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_readme_leads_to_every_guide_and_its_pictures_are_small() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"](docs/{guide.name})" in readme for guide in GUIDES)
    assert "](experiments/tutorial.py)" in readme
    pictures = [ROOT / name for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme)]
    assert sum(picture.stat().st_size for picture in pictures) < 1e6
    assert all(picture.stat().st_size < 8e4 for picture in pictures if picture.parent.name == "gallery")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_a_guide_shows_what_its_commands_print(
    guide: Path, examples: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers aside, which `python docs/run_examples.py` brings up to date."""
    monkeypatch.chdir(tmp_path)
    shown = guide.read_text()
    assert examples.masked(examples.run(shown)) == examples.masked(shown)


@pytest.mark.parametrize("page", [ROOT / "README.md", *GUIDES], ids=lambda page: page.name)
def test_snippets_parse(page: Path, examples: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python is compiled and its imports are made; commands name scripts and options that there are."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    for language, content in examples.blocks(page.read_text()):
        if language == "python":
            for node in ast.walk(ast.parse(content)):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    exec(ast.unparse(node), {})
        elif language == "yaml":
            import train_sac

            parsed = train_sac.SCRIPT.parser().parse_string(content)
            assert parsed["reward"]["encoder"] == yaml.safe_load(content)["reward"]["encoder"]
        elif language == "bash":
            for script in re.findall(r"python (\S+\.py)", content):
                assert (ROOT / script).is_file(), script
            for config in re.findall(r"configs/[\w/]+\.yaml", content):
                assert (ROOT / config).is_file(), config
            for command in re.findall(r"^vlmrm-wrap (.*?)(?: \|\||$)", content, re.MULTILINE):
                prompts = '--goal "a pole" --baseline "a cart"'
                words = examples.shlex.split(command.replace('"${prompts[@]}"', prompts))
                _parser().parse_args(words)


def readme_block(examples: ModuleType, word: str) -> list[ast.stmt]:
    """The statements of README's Python block that has ``word``."""
    return next(
        ast.parse(content).body
        for language, content in examples.blocks((ROOT / "README.md").read_text())
        if language == "python" and word in content
    )


def test_readmes_task_envs_draw_themselves(examples: ModuleType) -> None:
    """Without a display and without variables."""
    from test_mujoco import pytestmark, run_in_fresh_process

    if pytestmark.args[0]:
        pytest.skip(pytestmark.kwargs["reason"])
    lines = ["import gymnasium as gym"]
    for statement in readme_block(examples, "TexturedHumanoid"):
        lines += [ast.unparse(statement), "env.reset(seed=0)", "print(env.render().shape)"]
    assert run_in_fresh_process("\n".join(lines)).splitlines() == ["(400, 600, 3)", "(480, 480, 3)", "(480, 480, 3)"]


def test_readmes_labels_are_written(examples: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the last line, which needs somebody's labels."""
    monkeypatch.chdir(tmp_path)
    *statements, last = readme_block(examples, "write_label_sheet")
    names = {"gym": gym, "CLIPRewardWrapper": CLIPRewardWrapper, "model": SimpleNamespace(score=black)}
    exec("\n".join(map(ast.unparse, statements)), names)
    with pytest.raises(ValueError, match="no labels yet"):
        exec(ast.unparse(last), names)
    written = {path.name for path in (tmp_path / "labels").iterdir()}
    assert written == {"sheet-1.png", "sheet-2.png", "labels.csv", "rewards.csv"}


def black(frames: np.ndarray) -> FrameScores:
    return FrameScores(*np.zeros((3, len(frames)), np.float32))


def messages(source: str) -> list[str]:
    """All strings of a module, with ... for what is filled in."""
    strings = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr | ast.Constant)]
    parts = [node.values if isinstance(node, ast.JoinedStr) else [node] for node in strings]
    return ["".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in each) for each in parts]


def test_the_doctor_says_nothing_that_its_guide_leaves_out() -> None:
    """Every finding that is not ok has a row under what it is about, and every row quotes the code."""
    modules = [Path(module.__file__).read_text() for module in (checks, doctor)]
    encoder = (ROOT / "vlmrm_wrap" / "encoders" / "openai_clip.py").read_text()
    said = [text for source in [*modules, encoder] for text in messages(source)]
    raised = []
    for node in (node for source in modules for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
            severity, about = node.args[:2]
            if getattr(severity, "value", "") != "ok":
                raised.append(getattr(about, "value", "crop"))  # what is about the crop has it in a variable
    rows = []
    for section in (ROOT / "docs" / "reading_the_doctor.md").read_text().split("\n## ")[1:]:
        for quote in re.findall(r"^\| (?:error|warning)[^|]*\| `(.*?)` \|", section, re.MULTILINE):
            rows.append(section.split("\n")[0])
            assert any(quote in text for text in said), quote
    assert sorted(rows) == sorted(raised)


def run_script(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """A script in this process, which has imported everything slow already."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(ROOT / "experiments" / name), run_name="__main__")


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Shorter than an episode: there is no CLIP return to show, and none is spoken of."""
    diagnosis = doctor.doctor
    monkeypatch.setattr(doctor, "doctor", lambda env, **prompts: without_ends(diagnosis(env, **prompts)))
    run_script("tutorial.py", tmp_path, monkeypatch, "--steps", "256", "--episodes", "1", "--out", "out")
    told = capsys.readouterr().out
    assert "8. WHAT IT DOES" in told
    assert "alpha says" in told[: told.index("2. A GOOD FRAME")]
    assert "0 errors, 0 warnings" in told
    assert "One thing is wrong" not in told
    assert "merely surviving would pay" not in told
    assert "CLIP return" not in told[told.index("7. TRAINING") : told.index("8. WHAT IT DOES")]
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"good_and_bad.png", "landscape.png", "policy.zip", "episode.mp4", "scores.npz"}


def without_ends(diagnosis: doctor.Diagnosis) -> doctor.Diagnosis:
    diagnosis.findings = [finding for finding in diagnosis.findings if finding.about != "ends"]
    return diagnosis


def test_the_tutorial_shows_a_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a training that is a little longer than an episode."""
    run_script("tutorial.py", tmp_path, monkeypatch, "--steps", "4352", "--episodes", "1")
    told = capsys.readouterr().out
    assert "1 errors, 0 warnings" in told
    assert "merely surviving would pay" in told
    assert re.search(r"^step   4096: CLIP return +\d", told, re.MULTILINE)
    assert re.search(r"^The CLIP return, \d+ of \d+, says so", told, re.MULTILINE)


def test_the_tutorial_without_its_encoder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: no weights file at nowhere.pt$"):
        run_script("tutorial.py", tmp_path, monkeypatch, "--encoder", "nowhere.pt")


def a_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text("env: {id: CartPole-v1}")
    (folder / "reward_model.json").write_text("{}")
    rows = ["time/total_timesteps,rollout/ep_clip_rew_mean,rollout/ep_rew_mean", "100,,", "200,1.5,20", "300,2.5,30"]
    (folder / "progress.csv").write_text("\n".join(rows))
    return folder


def test_the_gallery_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path / "Some-seed3")
    run_script("gallery.py", tmp_path, monkeypatch, "out", run.name, "--points", "2", "--steps", "8")
    drawn = {"cartpole.png", "landscapes.png", "film_strips.png", "learning_curves.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == drawn
    for name in drawn:
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_learning_curves_have_one_legend_that_covers_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a seed has one colour in all panels."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import gallery

    figures = []
    monkeypatch.setattr(gallery, "save", lambda figure, _: figures.append(figure))
    runs = ("one-seed0", "one-seed10", "one-seed2", "other-seed2")
    gallery.learning_curves(tmp_path / "curves.png", [a_run(tmp_path / name) for name in runs])
    (figure,), panels = figures, figures[0].axes
    assert len(panels) == 4
    assert not any(axes.get_legend() for axes in panels)
    (legend,) = figure.legends
    shown = {text.get_text(): line.get_color() for text, line in zip(legend.texts, legend.legend_handles, strict=True)}
    assert list(shown) == ["seed0", "seed2", "seed10"]
    lines = [line for axes in panels for line in axes.lines]
    assert len(lines) == 8
    assert all(line.get_color() == shown[line.get_label()] for line in lines)
    figure.draw_without_rendering()
    assert legend.get_window_extent().y1 < min(axes.get_window_extent().y0 for axes in panels)


def test_the_gallery_says_what_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: \S+ is no run folder"):
        run_script("gallery.py", tmp_path, monkeypatch, "out", str(tmp_path), "--points", "2", "--steps", "8")
    assert not (tmp_path / "out").exists()  # before anything is drawn
