"""Options around a reward model: their formulas, nesting, recipes and pickles, and who gets whose prompt."""

import copy
import json
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from fakes import PaintedReward, captured, painted_value
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import DQN, PPO
from tiny_clips import tiny_state_dict
from walks import OFF, PPO_KWARGS, BackgroundReward, GreyReward, WalkEnv, assert_same_training, walk
from walks import make as make_algo

from vlmrm_wrap import (
    CLIPRewardModel,
    CLIPRewardVectorWrapper,
    CLIPRewardWrapper,
    PerEnvPrompts,
    ScaledReward,
    SoftmaxReward,
    StandardizedReward,
    UnknownPromptWarning,
    WeightedGoals,
)
from vlmrm_wrap.encoders.protocol import TwoTowers
from vlmrm_wrap.protocols import FrameScores, as_reward_model, recipe_of
from vlmrm_wrap.sb3 import CLIPRewardVecEnv

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)


class Scripted:
    """Scores frames by the next numbers of a list."""

    def __init__(self, rewards):
        self.rewards = list(rewards)

    def score(self, frames):
        now = np.array([self.rewards.pop(0) for _ in frames], np.float32)
        return FrameScores(now, now + 1, now + 2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.pt"
    torch.save(tiny_state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint):
    return CLIPRewardModel.from_pretrained(
        checkpoint, goal_prompts="pole upright", baseline_prompts="pole and cart", alpha=0.25, device="cpu"
    )


def scored(model, frames=FRAMES):
    return np.array(model.score(frames))


def blank(n):
    return np.zeros((n, 4, 4, 3), np.uint8)


# --- any model -----------------------------------------------------------------------------------------------


def test_scale_and_shift():
    scores = ScaledReward(Scripted([0.5, -1.0]), scale=2.0, shift=-3.0).score(blank(2))
    assert scores.rewards.tolist() == [-2.0, -5.0]
    assert scores.rewards.dtype == np.float32
    assert scores.goal_similarity.tolist() == [1.5, 0.0]
    assert scores.baseline_similarity.tolist() == [2.5, 1.0]


def test_nothing_is_changed_by_default():
    assert ScaledReward(Scripted([0.1, 0.7])).score(blank(2)).rewards.tolist() == np.float32([0.1, 0.7]).tolist()


REWARDS = np.float32(np.random.default_rng(1).normal(0.8, 0.05, 40))


def test_standardised_rewards_are_measured_by_all_until_then():
    got = StandardizedReward(Scripted(REWARDS)).score(blank(40)).rewards
    wanted = [0.0] + [(REWARDS[i] - REWARDS[: i + 1].mean()) / (REWARDS[: i + 1].std() + 1e-5) for i in range(1, 40)]
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_what_rounding_leaves_of_one_reward_is_no_spread():
    noisy = np.float32(0.8) + np.float32(np.random.default_rng(0).uniform(-1e-7, 1e-7, 1000))
    assert len(set(noisy.tolist())) > 2
    paid = StandardizedReward(Scripted(noisy)).score(blank(1000)).rewards
    assert np.abs(paid).max() < 0.02


def test_standardised_rewards_do_not_depend_on_the_batches():
    whole = StandardizedReward(Scripted(REWARDS)).score(blank(40)).rewards
    model = StandardizedReward(Scripted(REWARDS))
    parts = [model.score(blank(n)).rewards for n in (1, 0, 7, 32)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_standardised_rewards_of_one_value_are_0():
    assert StandardizedReward(Scripted([0.1] * 5)).score(blank(5)).rewards.tolist() == [0.0] * 5


def test_statistics_go_on_where_they_were_saved():
    whole = StandardizedReward(Scripted(REWARDS)).score(blank(40)).rewards
    first = StandardizedReward(Scripted(REWARDS[:25]))
    first.score(blank(25))
    state = json.loads(json.dumps(first.state_dict()))
    assert state["count"] == 25
    assert state["mean"] == pytest.approx(REWARDS[:25].mean())
    assert math.sqrt(state["squares"] / 25) == pytest.approx(REWARDS[:25].std(), rel=1e-5)
    second = StandardizedReward(Scripted(REWARDS[25:]))
    second.load_state_dict(state)
    np.testing.assert_array_equal(second.score(blank(15)).rewards, whole[25:])
    third = pickle.loads(pickle.dumps(first))
    assert third.state_dict() == state


def test_statistics_stand_still_for_evaluation():
    model = StandardizedReward(Scripted([0.0, 1.0, 2.0, 2.0]))
    model.score(blank(2))
    model.training = False
    assert model.score(blank(2)).rewards == pytest.approx(3.0, abs=1e-4)  # mean 0.5, std 0.5
    assert model.state_dict()["count"] == 2


def test_an_option_outside_stops_and_starts_the_statistics_inside():
    innermost = StandardizedReward(Scripted(REWARDS))
    middle = StandardizedReward(ScaledReward(innermost))
    outside = ScaledReward(middle)
    assert outside.training
    outside.training = False
    assert [option.training for option in (outside, middle, innermost)] == [False] * 3
    outside.score(blank(4))
    assert middle.state_dict()["count"] == innermost.state_dict()["count"] == 0
    outside.training = True
    outside.score(blank(4))
    assert middle.state_dict()["count"] == innermost.state_dict()["count"] == 4


STATE = {"count": 3, "mean": 0.5, "squares": 0.1}


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        [3, 0.5, 0.1],
        {"count": 1, "mean": 0},
        STATE | {"squares": math.nan},
        STATE | {"squares": -0.1},
        STATE | {"squares": "0.1"},
        STATE | {"mean": None},
        STATE | {"mean": math.inf},
        {"count": -1, "mean": 0.5, "squares": 0},
        {"count": True, "mean": 0.5, "squares": 0},
        STATE | {"count": 1.5},
        STATE | {"count": "3"},
        STATE | {"count": 0},
        STATE | {"count": 1},
        STATE | {"sum": 1.5},
        STATE | {"model": {}},
    ],
)
def test_another_state_is_refused(state):
    model = StandardizedReward(Scripted([]))
    model.load_state_dict(STATE)
    with pytest.raises(ValueError, match=r"count, mean and squares|the state has one of the model inside"):
        model.load_state_dict(state)
    assert model.state_dict() == STATE


def test_a_state_is_that_of_the_whole_nest(model, monkeypatch):
    def nest():
        return ScaledReward(StandardizedReward(ScaledReward(StandardizedReward(SoftmaxReward(model, ["a cart"])))))

    option, other, fresh = nest(), nest(), nest()
    option.score(FRAMES)
    state = pickle.loads(pickle.dumps(option.state_dict()))
    other.load_state_dict(state)
    monkeypatch.setattr(model.encoder, "encode_image", None)  # nothing is encoded again
    np.testing.assert_array_equal(scored(other), scored(option))
    assert other.state_dict() == option.state_dict()
    assert other.cache_info.hits == 5
    fresh.load_state_dict({name: state[name] for name in STATE})  # the outer statistics alone
    assert fresh.state_dict()["count"] == 5
    assert fresh.model.model.state_dict()["count"] == 0


# --- prompts -------------------------------------------------------------------------------------------------


def test_embeddings_score_like_their_frames(model):
    embeddings = model.embed(FRAMES)
    assert embeddings.shape == (5, 32)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.array(model.score_embeddings(embeddings)), scored(model), atol=1e-6)
    assert model.score_embeddings(embeddings[:0]).rewards.shape == model.embed(FRAMES[:0]).shape[:1] == (0,)
    assert scored(model).std(axis=1).min() > 1e-4  # else nothing here would tell frames apart


def test_with_settings_keeps_the_encoder_and_the_rest(model):
    other = model.with_settings(goal_prompts="a cart")
    assert other.encoder is model.encoder
    changed = {name: value for name, value in other.recipe.items() if value != model.recipe[name]}
    assert changed == {"goal_prompts": ["a cart"]}


def test_weighted_goals_are_the_sum_of_their_rewards(model, monkeypatch):
    option = WeightedGoals(model, ["a cart", ["pole down", "pole hanging"]], [2, -0.5], ["a scene", "pole and cart"])
    first = model.with_settings(goal_prompts="a cart", baseline_prompts="a scene")
    second = model.with_settings(goal_prompts=["pole down", "pole hanging"])
    wanted = 2 * scored(first) - 0.5 * scored(second)
    np.testing.assert_allclose(scored(option), wanted, atol=2e-6)
    encoded = []
    encode = model.encoder.encode_image
    monkeypatch.setattr(model.encoder, "encode_image", lambda images: (encoded.append(len(images)), encode(images))[1])
    option.score(FRAMES)
    assert encoded == [], "it was scored above, and is remembered"
    assert option.cache_info.hits == ScaledReward(option).cache_info.hits == 5
    option.score(np.roll(FRAMES, 1, axis=2))
    assert encoded == [5]


@pytest.mark.parametrize(("cache", "encodes"), [(True, [5]), (False, [5, 5])])
def test_frames_that_come_again_are_encoded_as_often_as_by_the_model(model, cache, encodes, monkeypatch):
    without = CLIPRewardModel(model.encoder, goal_prompts="pole upright", baseline_prompts="pole and cart", cache=cache)
    option = SoftmaxReward(without, ["a cart"])
    encoded = []
    encode = model.encoder.encode_image
    monkeypatch.setattr(model.encoder, "encode_image", lambda images: (encoded.append(len(images)), encode(images))[1])
    first, second = option.score(FRAMES), option.score(FRAMES)
    np.testing.assert_array_equal(first, second)
    assert encoded == encodes
    assert (option.cache_info is None) == (not cache)


def test_one_goal_of_weight_1_is_the_model_itself(model):
    np.testing.assert_allclose(scored(WeightedGoals(model, ["pole upright"], [1])), scored(model), atol=1e-6)


def test_softmax_is_the_probability_of_the_goal(model):
    option = SoftmaxReward(model, ["pole and cart", "an empty room"], temperature=0.05)
    embeddings = model.embed(FRAMES).astype(np.float64)
    texts = model.encoder.encode_text(["pole upright", "pole and cart", "an empty room"]).double().numpy()
    logits = np.exp(embeddings @ texts.T / 0.05)
    scores = scored(option)
    np.testing.assert_allclose(scores[0], logits[:, 0] / logits.sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(scores[1:], scored(model)[1:], atol=1e-6)
    tiny = SoftmaxReward(model, ["pole and cart"], temperature=1e-5)  # nothing overflows
    assert set(scored(tiny)[0].round(6)) <= {0.0, 1.0}


def test_softmax_is_as_sharp_as_the_encoder_was_trained(model, monkeypatch):
    own = SoftmaxReward(model, ["a cart"])
    assert own.temperature == 1 / model.encoder.logit_scale
    assert recipe_of(own)["temperature"] == own.temperature  # another version of the encoder pays the same
    monkeypatch.setattr(model.encoder, "logit_scale", 20.0)
    assert SoftmaxReward(model, ["a cart"]).temperature == 0.05
    monkeypatch.delattr(model.encoder, "logit_scale")
    monkeypatch.delattr(TwoTowers, "logit_scale")
    assert SoftmaxReward(model, ["a cart"]).temperature == 0.01


@pytest.mark.parametrize("negative", ["pole upright", " Pole  UPRIGHT "])
def test_the_goal_is_no_negative(model, negative, monkeypatch):
    with pytest.raises(ValueError, match=r"the negative '.*' is a goal of the model; required: something else"):
        SoftmaxReward(model, ["a cart", negative])
    with pytest.raises(ValueError, match="is a goal of the model"):
        SoftmaxReward(model.with_settings(goal_prompts=["a cart", "pole upright"]), [negative])
    monkeypatch.setattr(CLIPRewardModel, "from_pretrained", None)  # from a recipe, before weights load
    with pytest.raises(ValueError, match="is a goal of the model"):
        SoftmaxReward(model.recipe, [negative])


def test_the_goal_in_other_words_is_no_negative(model):
    """What the tokenizer makes the same."""
    with pytest.raises(ValueError, match="the negative 'pole upright&#32;' is the goal, as an embedding"):
        SoftmaxReward(model, ["pole upright&#32;"])


def test_only_rewards_of_one_goal_and_baseline_have_constants(model):
    assert ScaledReward(StandardizedReward(model)).constants == model.constants
    for option in (SoftmaxReward(model, ["a cart"]), WeightedGoals(model, ["a cart"], [2])):
        assert not hasattr(ScaledReward(option), "constants")


PROMPTS = ["pole upright", "a cart", "pole upright", "an empty room"]


def test_row_i_has_prompt_i(model):
    option = PerEnvPrompts(model, PROMPTS)
    wanted = [model.with_settings(goal_prompts=PROMPTS[i]).score(FRAMES[i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(scored(option, FRAMES[:4]), np.array(wanted)[:, :, 0].T, atol=1e-6)
    np.testing.assert_allclose(
        np.array(option.score_envs(FRAMES[[3, 1]], np.array([3, 1]))), scored(option, FRAMES[:4])[:, [3, 1]], atol=1e-6
    )
    with pytest.raises(ValueError, match="has 4 goals and got 5 frames"):
        option.score(FRAMES)


def test_each_env_may_have_its_own_baseline(model):
    option = PerEnvPrompts(model, ["a cart", "a cart"], ["a scene", "a room"])
    wanted = [
        model.with_settings(goal_prompts="a cart", baseline_prompts=each).score(FRAMES[:1])
        for each in ("a scene", "a room")
    ]
    got = scored(option, FRAMES[[0, 0]])
    np.testing.assert_allclose(got, np.array(wanted)[:, :, 0].T, atol=1e-6)
    assert abs(got[0, 0] - got[0, 1]) > 1e-4


class Told(PaintedReward):
    """Adds a million times what it is told of who the frames are of: the index of the sub-env."""

    def score(self, frames):
        assert len(frames) == 3, "who the frames are of was not told"
        return self.score_envs(frames, np.arange(3))

    def score_envs(self, frames, envs):
        scores = super().score(frames)
        return scores._replace(rewards=scores.rewards + np.float32(2**20) * np.float32(envs))


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_a_model_is_told_which_sub_envs_its_frames_are_of(mode):
    """In a NEXT_STEP reset step the rows are not the sub-envs, and row i would be scored by another's prompt."""
    envs = SyncVectorEnv([lambda i=i: captured(i, (i + 1, 2)) for i in range(3)], autoreset_mode=mode)
    scorer = Told()
    envs = CLIPRewardVectorWrapper(envs, ScaledReward(scorer, scale=1.0))
    envs.reset()
    partly = 0
    for _ in range(8):
        before = len(scorer.seen)
        _, rewards, terminations, truncations, infos = envs.step([0, 0, 0])
        for row in scorer.seen[before:]:
            index = row[0]
            assert infos["_env_reward"][index]
            assert rewards[index] == 2**20 * index + painted_value(*row)
        partly += 0 < infos["_env_reward"].sum() < 3
        over = terminations | truncations
        if mode == AutoresetMode.DISABLED and over.any():
            envs.reset(options={"reset_mask": over})
    assert (partly > 2) == (mode == AutoresetMode.NEXT_STEP)


def test_sub_envs_of_stable_baselines_have_their_own_prompts():
    from stable_baselines3.common.vec_env import DummyVecEnv

    venv = CLIPRewardVecEnv(DummyVecEnv([lambda i=i: captured(i, (2,)) for i in range(3)]), ScaledReward(Told()))
    venv.reset()
    assert venv.step([0, 0, 0])[1].tolist() == [2**20 * i + painted_value(i, 1, 1) for i in range(3)]


# --- recipes and pickles -------------------------------------------------------------------------------------


def nests(model):
    return [
        ScaledReward(StandardizedReward(model), 2.0, -1.0),
        StandardizedReward(WeightedGoals(model, ["a cart", ["a pole"]], [0.5, 0.25], ["a scene", "a room"])),
        ScaledReward(SoftmaxReward(model, ["a cart"], 0.1), shift=0.5),
        PerEnvPrompts(model, ["a cart", "a pole", "a room", "pole", "cart"]),
    ]


@pytest.mark.parametrize("which", range(4))
def test_recipes_and_pickles_rebuild_the_nest(model, which, monkeypatch):
    option = nests(model)[which]
    recipe = json.loads(json.dumps(recipe_of(option)))
    loads = []
    load = CLIPRewardModel.from_pretrained
    monkeypatch.setattr(CLIPRewardModel, "from_pretrained", lambda **recipe: (loads.append(1), load(**recipe))[1])
    rebuilt = as_reward_model(recipe)
    assert type(rebuilt) is type(option)
    assert recipe_of(rebuilt) == recipe
    again, twice = pickle.loads(pickle.dumps(option)), copy.deepcopy(option)
    assert len(loads) == 3, "the encoder loads once each time"
    wanted = scored(option)
    for other in (rebuilt, again, twice):
        np.testing.assert_array_equal(scored(other), wanted)
    assert len(pickle.dumps(option)) < 5000


def test_a_fake_has_no_recipe_but_options_around_it_work():
    option = ScaledReward(PaintedReward())
    assert option.recipe is None
    assert repr(option).startswith("ScaledReward(<fakes.PaintedReward")
    assert not hasattr(option, "micro_batch_size")
    assert repr(ScaledReward(Scripted([]), 2.0)).endswith(", scale=2.0, shift=0.0)")


def test_an_option_offers_the_micro_batch_of_its_model(model):
    option = ScaledReward(PerEnvPrompts(model, ["a cart", "a pole"]))
    assert option.micro_batch_size == 2


@pytest.mark.parametrize("which", [2, 3])
def test_what_the_frames_left_behind_goes_on_elsewhere(model, which, monkeypatch):
    option, other = nests(model)[which], nests(model)[which]
    wanted = scored(option)
    other.load_state_dict(option.state_dict())
    monkeypatch.setattr(model.encoder, "encode_image", None)  # nothing is encoded again
    np.testing.assert_array_equal(scored(other), wanted)
    with pytest.raises(ValueError, match="a state has"):
        other.load_state_dict({**option.state_dict(), "cache": None})


# --- in the background ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", range(4))
def test_scoring_later_gives_the_same(model, which):
    wanted = scored(nests(model)[which])
    frames = FRAMES.copy()
    later = nests(model)[which].score_later(frames)
    frames[:] = 0
    np.testing.assert_array_equal(np.array(later()), wanted)


def test_an_option_scores_later_where_its_model_can():
    assert not hasattr(ScaledReward(PaintedReward()), "score_later")
    assert not hasattr(ScaledReward(StandardizedReward(PaintedReward())), "score_later")
    assert hasattr(ScaledReward(BackgroundReward()), "score_later")


@pytest.mark.parametrize("scorer", [GreyReward, BackgroundReward])
@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, PPO_KWARGS), (DQN, OFF)], ids=["PPO", "DQN"])
def test_deferred_training_sees_the_same_options(scorer, algorithm, kwargs):
    trained = []
    for deferred in (False, True):
        option = ScaledReward(StandardizedReward(scorer()), 0.5, 1.0)
        trained.append(make_algo(algorithm, walk(deferred, model=option), **kwargs).learn(150))
    assert_same_training(*trained)


@pytest.mark.parametrize("deferred", [False, True])
def test_deferred_sub_envs_keep_their_own_prompts(model, deferred):
    goals = ["pole upright", "a cart", "an empty room"]
    venv = walk(deferred, model=ScaledReward(PerEnvPrompts(model, goals)))
    algo = make_algo(PPO, venv, **PPO_KWARGS).learn(48)
    grey = np.arange(256, dtype=np.uint8)
    x = algo.rollout_buffer.observations.reshape(3, 16, 2)[:, 1:, 0].T  # PPO has flattened them, env by env
    for env, goal in enumerate(goals):
        frames = np.tile(grey[:, None, None, None], (1, 4, 6, 3))
        possible = model.with_settings(goal_prompts=goal).score(frames).rewards
        wanted = possible[np.uint8(128 + 20 * x[:, env])]
        paid = algo.rollout_buffer.rewards.reshape(16, 3)[:-1, env]
        stayed = algo.rollout_buffer.episode_starts.reshape(16, 3)[1:, env] == 0
        assert stayed.sum() > 5
        np.testing.assert_allclose(paid[stayed], wanted[stayed], atol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda option: CLIPRewardWrapper(WalkEnv(), option),
        lambda option: CLIPRewardVectorWrapper(SyncVectorEnv([lambda: captured(0)] * 3), option),
        lambda option: walk(False, model=option),
        lambda option: walk(True, model=option),
    ],
)
def test_prompts_for_another_number_of_sub_envs_are_refused_at_once(model, wrap):
    option = ScaledReward(PerEnvPrompts(model, ["a cart", "a pole"]))
    with pytest.raises(ValueError, match=r"has 2 goals, and there are (1|3) sub-envs"):
        wrap(option)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda m: ScaledReward(m, scale=0), ValueError, "scale is 0"),
        (lambda m: ScaledReward(m, shift=math.inf), ValueError, "shift must be finite"),
        (lambda m: ScaledReward(m, scale="2"), TypeError, "scale must be a number"),
        (lambda m: ScaledReward("model"), TypeError, "reward_model is 'model'"),
        (lambda m: WeightedGoals(m, ["a", "b"], [1]), ValueError, "2 goals and 1 weights"),
        (lambda m: WeightedGoals(m, ["a", "b"], [0, 0.0]), ValueError, r"weights are \[0.0, 0.0\]"),
        (lambda m: WeightedGoals(m, ["a", "b"], [1, math.nan]), ValueError, "a weight must be finite"),
        (lambda m: WeightedGoals(m, ["a", "b"], [1, 2], ["c"]), ValueError, "2 goals and 1 baselines"),
        (lambda m: WeightedGoals(m, "a cart", [1]), TypeError, "goals must be a list of sentences"),
        (lambda m: WeightedGoals(m, ["pole and cart"], [1]), ValueError, "goal and baseline are the same"),
        (lambda m: PerEnvPrompts(m, []), ValueError, "goals is empty"),
        (lambda m: PerEnvPrompts(PaintedReward(), ["a"]), TypeError, "needs the CLIPRewardModel itself"),
        (lambda m: WeightedGoals(ScaledReward(m), ["a"], [1]), TypeError, r"go outside, ScaledReward\(WeightedGoals"),
        (lambda m: SoftmaxReward(WeightedGoals(m, ["a"], [1]), ["b"]), TypeError, "PerEnvPrompts there is one"),
        (lambda m: SoftmaxReward(m, []), ValueError, "negatives is empty"),
        (lambda m: SoftmaxReward(m, ["a"], temperature=0), ValueError, "temperature is 0"),
        (lambda m: as_reward_model({"option": "Magic", "model": m.recipe}), ValueError, "'Magic'.*known: ScaledRew"),
        (
            lambda m: as_reward_model({"option": "ScaledReward", "model": m.recipe, "factor": 2}),
            ValueError,
            "recipe of ScaledReward doesn't fit",
        ),
    ],
)
def test_what_can_not_be_meant_is_refused(model, make, error, match):
    with pytest.raises(error, match=match):
        make(model)


def test_the_embedded_model_warns_of_words_in_any_prompt():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = CLIPRewardModel.from_pretrained(
            "embedded", goal_prompts="pole upright", baseline_prompts="pole and cart", device="cpu"
        )
    with pytest.warns(UnknownPromptWarning, match="zebra") as caught:
        SoftmaxReward(model, ["a zebra"])
    assert caught[0].filename == __file__
