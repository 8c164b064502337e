"""Textures for any MuJoCo env of Gymnasium, through the env's own arguments.

:func:`textured_mujoco_xml` copies the env's model file with other materials, for ``gym.make(..., xml_file=...)``.
Numbers are copied as text, and neither a geom nor a shape is added, so the physics are the same to the bit.
"""

import inspect
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.tasks.looks import look
from vlmrm_wrap.tasks.sky import SKIES, sky_faces

__all__ = ["textured_mujoco_xml"]

_SIZE = 512  # pixels of a floor's picture
_BODY_SIZE = 256
_DRIVEN_BY = ("joint", "jointinparent", "tendon", "site", "body", "cranksite")  # attributes of actuators and tendons
_FLOOR_TINT = "0.75 0.75 0.75 1"  # Gymnasium's lamps add up to more than white


def textured_mujoco_xml(
    env_or_xml: str | Path,
    folder: str | Path,
    *,
    floor: str | None = "wood",
    sky: str | None = "day",
    body: str | Mapping[str, str] | None = "metal",
    floor_tile: float = 2.0,
) -> Path:
    """Write a copy of a model with other textures into ``folder``, and return its path.

    ``env_or_xml``: the id of a Gymnasium env that takes ``xml_file``, or the path of a model. Looks are "wood",
    "grass", "earth", "tiles", "metal", "skin", or a colour "#rrggbb" for cloth dyed so; None leaves things as they are.
    ``floor``: of all planes, which are drawn to the horizon, its picture repeated every ``floor_tile`` metres. ``sky``:
    "day" or "evening". ``body``: one look for the robot, all that hangs together with what an actuator moves, or
    several by regular expression, the first that matches a geom's name (its body's where it has none). What matches
    none, or is translucent, stays as it is, and so do goals and things to push, unless an expression other than "" has
    their names; without actuators everything that is no part of the world counts as robot.
    The pictures lie beside the copy, which reads them, and the model's meshes, by absolute paths, when the env is
    made.

    Example:
        >>> xml = textured_mujoco_xml("HalfCheetah-v5", "looks", floor="grass", body={"foot": "#222222", "": "#c08040"})
        >>> env = gym.make("HalfCheetah-v5", xml_file=str(xml), render_mode="rgb_array")

    Raises ValueError for an env without ``xml_file`` or an unknown look, FileNotFoundError for no such model.
    """
    source = _model_file(env_or_xml)
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    root = ET.parse(source).getroot()
    _inline_includes(root, source.parent)
    _anchor_paths(root, source.parent)
    assets = ET.SubElement(root, "asset")
    if sky is not None:
        _replace_sky(root, assets, folder, sky)
    if floor is not None:
        name = _add_look(assets, folder, floor, "2d", _SIZE, 1 / floor_tile)
        _lay_floor(root, name, source)
    if body is not None:
        _dress(root, assets, folder, {"": body} if isinstance(body, str) else body)
    path = folder / source.name
    ET.ElementTree(root).write(path)
    return path


def _model_file(env_or_xml: str | Path) -> Path:
    if isinstance(env_or_xml, Path) or str(env_or_xml).endswith(".xml"):
        path = Path(env_or_xml).expanduser().resolve()
        if not path.is_file():
            raise FileNotFoundError(f"there is no model {path}; required: an XML file of MuJoCo, or a Gymnasium id")
        return path
    make = gym.envs.registration.load_env_creator(str(gym.spec(env_or_xml).entry_point))
    xml_file = inspect.signature(make).parameters.get("xml_file")
    if xml_file is None:
        raise ValueError(
            f"{env_or_xml} takes no xml_file; required: a MuJoCo env that does, as Gymnasium's -v5 ones do"
        )
    from gymnasium.envs.mujoco.mujoco_env import expand_model_path

    return Path(expand_model_path(xml_file.default))


def _inline_includes(element: ET.Element, folder: Path) -> None:
    """Put what is included in its place, as MuJoCo does; its paths are relative to the main file too."""
    for index, child in reversed(list(enumerate(element))):
        if child.tag == "include":
            included = ET.parse(folder / child.get("file", "")).getroot()
            element[index : index + 1] = list(included)
            _inline_includes(element, folder)
            return
        _inline_includes(child, folder)


def _anchor_paths(root: ET.Element, folder: Path) -> None:
    """Meshes, height fields and textures are found from anywhere."""
    compilers = root.findall("compiler") or [ET.SubElement(root, "compiler")]
    given: dict[str, str] = {}
    for compiler in compilers:
        given.update(compiler.attrib)
        for name in ("assetdir", "meshdir", "texturedir"):
            compiler.attrib.pop(name, None)
    for name in ("meshdir", "texturedir"):
        compilers[-1].set(name, str(folder / given.get(name, given.get("assetdir", ""))))


def _replace_sky(root: ET.Element, assets: ET.Element, folder: Path, sky: str) -> None:
    if sky not in SKIES:
        raise ValueError(f"sky is {sky!r}; required: one of {sorted(SKIES)}, or None for the model's own")
    for block in root.iter("asset"):
        for texture in [texture for texture in block.findall("texture") if texture.get("type") == "skybox"]:
            block.remove(texture)
    haze = " ".join(f"{level / 255:.3f}" for level in SKIES[sky][1])
    ET.SubElement(ET.SubElement(root, "visual"), "rgba", haze=f"{haze} 1")  # which the floor fades into
    texture = ET.SubElement(assets, "texture", name="vlmrm_sky", type="skybox")
    for face, picture in sky_faces(sky).items():
        file = folder / f"sky_{sky}_{face}.png"
        _save(picture, file)
        texture.set(f"file{face}", str(file))


def _lay_floor(root: ET.Element, material: str, source: Path) -> None:
    """On every plane, drawn to the horizon: for the physics planes have no end, whatever their size says."""
    import mujoco

    for geom in root.iter("geom"):
        if geom.get("type") == "plane" and _opaque(geom):
            *_, spacing = geom.get("size", "0 0 1").split()
            geom.attrib.update(material=material, rgba=_FLOOR_TINT, size=f"0 0 {spacing}")
    seen = mujoco.MjModel.from_xml_path(str(source)).stat  # by which cameras and shadows go
    ET.SubElement(root, "statistic", extent=repr(float(seen.extent)), center=" ".join(map(str, seen.center.tolist())))


def _add_look(assets: ET.Element, folder: Path, name: str, kind: str, size: int, repeat: float) -> str:
    """The name of the material, made on first use."""
    material = f"vlmrm_{kind}_{name.lstrip('#')}"
    if assets.find(f"material[@name='{material}']") is None:
        file = folder / f"{material}.png"
        _save(look(name, size), file)
        ET.SubElement(assets, "texture", name=material, type=kind, file=str(file))
        made = ET.SubElement(assets, "material", name=material, texture=material, texuniform="true", reflectance="0")
        made.set("texrepeat", f"{repeat} {repeat}")
        specular, shininess = ("0.5", "0.6") if name == "metal" else ("0.1", "0.1")
        made.attrib.update(specular=specular, shininess=shininess)
    return material


def _dress(root: ET.Element, assets: ET.Element, folder: Path, looks: Mapping[str, str]) -> None:
    parts = [part for world in root.findall("worldbody") for part in world.findall("body")]
    robots = [part for part in parts if _is_driven(part, root)] or parts
    for part in parts:
        fitting = {pattern: look for pattern, look in looks.items() if pattern or part in robots}
        for body in part.iter("body"):
            for geom in body.findall("geom"):
                name = geom.get("name") or body.get("name") or ""
                found = next((look for pattern, look in fitting.items() if re.search(pattern, name)), None)
                if found is not None and geom.get("type") != "plane" and _opaque(geom):
                    material = _add_look(assets, folder, found, "cube", _BODY_SIZE, 1)
                    geom.attrib.update(material=material, rgba="1 1 1 1")


def _is_driven(part: ET.Element, root: ET.Element) -> bool:
    """Whether an actuator moves it: a robot, where goals and things to push are not."""
    driven = {drive.get(by) for drives in root.iter("actuator") for drive in drives for by in _DRIVEN_BY}
    for tendon in (tendon for tendons in root.iter("tendon") for tendon in tendons if tendon.get("name") in driven):
        driven |= {of.get(by) for of in tendon for by in _DRIVEN_BY}
    return any(each.get("name") in driven - {None} for each in part.iter())


def _save(picture: NDArray[np.uint8], file: Path) -> None:
    from PIL import Image

    Image.fromarray(picture).save(file)


def _opaque(geom: ET.Element) -> bool:
    rgba = geom.get("rgba", "1 1 1 1").split()
    return len(rgba) < 4 or float(rgba[3]) == 1
