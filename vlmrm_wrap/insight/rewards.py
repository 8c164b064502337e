"""A run's reward with something changed: its recipe, options around the model included."""

from collections.abc import Mapping
from typing import Any

__all__ = ["changed_recipe"]

# What of the model inside has no part in an option's reward.
_VOID = {
    "WeightedGoals": {"goal_prompts"},
    "PerEnvPrompts": {"goal_prompts"},
    "SoftmaxReward": {"baseline_prompts", "alpha"},
}


def changed_recipe(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``recipe`` with the ``changes`` to the model inside it, and the options around that as they were.

    ValueError for a change that the options would make nothing of.
    """
    if "option" not in recipe:
        return {**recipe, **changes}
    void = set(_VOID.get(recipe["option"], ()))
    void |= {"baseline_prompts"} if recipe.get("baselines") else set()
    for name in sorted(void & changes.keys()):
        own = {key: value for key, value in recipe.items() if key not in ("option", "model") and value is not None}
        raise ValueError(f"other {name} would change nothing: the run's reward is {recipe['option']}, with {own}")
    return {**recipe, "model": changed_recipe(recipe["model"], changes)}
