"""What users install: the wheel holds the weights, their card and the types, and scores a frame."""

import pathlib
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).parent.parent


def test_the_wheel_is_complete_and_scores_a_frame(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("vlmrm_wrap-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("py.typed", "encoders/assets/embedded_clip.safetensors", "encoders/assets/MODEL_CARD.md"):
        assert f"vlmrm_wrap/{part}" in names
    assert not [name for name in names if name.startswith(("tests", "experiments"))]

    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True)
    script = f"""
import sys
sys.path.insert(0, {str(site)!r})
import numpy as np
import vlmrm_wrap
assert vlmrm_wrap.__file__.startswith({str(site)!r}), vlmrm_wrap.__file__
model = vlmrm_wrap.CLIPRewardModel.from_pretrained(
    "embedded", goal_prompts="pole upright on the cart", baseline_prompts="pole and cart"
)
print(model(np.full((1, 400, 600, 3), 255, np.uint8)).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "(1,)"
