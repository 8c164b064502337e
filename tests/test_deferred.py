"""Deferred rewards: the training of the immediate path to the bit, and no number before it is known."""

import copy
import csv
import pickle
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from fakes import PaintedEnv, PaintedReward, painted_value
from gymnasium import spaces
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import (
    SubprocVecEnv,
    VecCheckNan,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)
from test_sb3 import painted

from vlmrm_wrap import CLIPRewardModel, FrameScores
from vlmrm_wrap.sb3 import (
    CLIPReplayBuffer,
    CLIPRewardLogger,
    CLIPRewardVecEnv,
    CLIPRolloutBuffer,
    DeferredVecNormalize,
    deferred_kwargs,
    make_vec_env,
    use_deferred_buffer,
)


class WalkEnv(gym.Env):
    """A walk on a line, painted as grey; ends at +-4, is cut off after 7 steps, starts at random."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's convention

    def __init__(self, continuous=False, dict_obs=False, render_mode="rgb_array"):
        self.render_mode = render_mode
        line = spaces.Box(-9, 9, (2,), np.float32)
        self.observation_space = spaces.Dict({"line": line, "time": spaces.Box(0, 9, (1,))}) if dict_obs else line
        self.action_space = spaces.Box(-2, 2, (1,)) if continuous else spaces.Discrete(2)

    def _obs(self):
        line = np.array([self.x, self.x**2 / 9], np.float32)
        dict_obs = isinstance(self.observation_space, spaces.Dict)
        return {"line": line, "time": np.array([self.time], np.float32)} if dict_obs else line

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.time = self.np_random.uniform(-2, 2), 0
        return self._obs(), {}

    def step(self, action):
        discrete = isinstance(self.action_space, spaces.Discrete)
        self.x += float(2 * action - 1 if discrete else action[0])
        self.time += 1
        return self._obs(), 1.0, abs(self.x) > 4, self.time == 7, {}

    def render(self):
        return np.full((4, 6, 3), 128 + 20 * self.x, np.uint8)

    def action_masks(self):
        return np.array([True, self.x < 3])


class GreyReward:
    """A number for each grey, whatever the batch; knows how often it was asked, and for how many frames."""

    micro_batch_size = 10  # no multiple of the envs: micro-batches begin and end within a step

    def __init__(self):
        self.batches = []

    def score(self, frames):
        self.batches.append(len(frames))
        grey = np.sin(frames[:, 0, 0, 0].astype(np.float32) / 40)
        return FrameScores(grey, grey, grey)


class BackgroundReward(GreyReward):
    """The same through score_later, in a thread, from its own copy of the frames."""

    def __init__(self):
        super().__init__()
        self.pool = ThreadPoolExecutor(1)

    def score_later(self, frames):
        return self.pool.submit(self.score, frames.copy()).result


def walk(deferred, n=3, *, model=None, vec_env_cls=None, **kwargs):
    vec = {} if vec_env_cls is None else {"vec_env_cls": vec_env_cls, "start_method": "fork"}
    venv = make_vec_env(WalkEnv, n, seed=1, env_kwargs=kwargs, **vec)
    return CLIPRewardVecEnv(venv, model or GreyReward(), deferred=deferred)


def contrib(name):
    return getattr(pytest.importorskip("sb3_contrib"), name)


def make(algorithm, venv, policy="MlpPolicy", n_step=1, **kwargs):
    """``algorithm`` for ``venv``, with the buffer that it needs; ``n_step``: off-policy's n_steps."""
    kwargs |= {"gamma": 0.9, "seed": 1, "device": "cpu"}
    n_steps = {} if n_step == 1 else {"n_steps": n_step}
    if not any(layer.deferred for layer in layers(venv) if isinstance(layer, CLIPRewardVecEnv)):
        return algorithm(policy, venv, **kwargs, **n_steps)
    if algorithm.__name__ == "RecurrentPPO":
        return use_deferred_buffer(algorithm(policy, venv, **kwargs))
    given = deferred_kwargs(algorithm, venv, **n_steps, **({"gamma": 0.9} if n_steps else {}))
    return algorithm(policy, venv, **kwargs, **given)


def layers(venv):
    while isinstance(venv, VecEnvWrapper):
        yield venv
        venv = venv.venv


NET = {"policy_kwargs": {"net_arch": [8]}}
ON = {**NET, "n_steps": 16}
BATCHES = {"batch_size": 16, "n_epochs": 2}
OFF = {**NET, "learning_starts": 40, "buffer_size": 75, "batch_size": 16}  # 75 rows of steps come round
MOVES = {"continuous": True}
DICT = {"dict_obs": True}
MULTI = {"policy": "MultiInputPolicy"}
LSTM = {"policy_kwargs": {"net_arch": [8], "lstm_hidden_size": 8}}
THRIFTY = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}

COMBINATIONS = {
    "PPO": (PPO, {}, {**ON, **BATCHES}),
    "PPO-Dict": (PPO, DICT, {**ON, **BATCHES, **MULTI}),
    "PPO-Box-action": (PPO, MOVES, {**ON, **BATCHES}),
    "A2C": (A2C, {}, ON),
    "A2C-Dict": (A2C, DICT, {**ON, **MULTI}),
    "TRPO": ("TRPO", {}, {**ON, "batch_size": 16}),
    "TRPO-Dict": ("TRPO", DICT, {**ON, "batch_size": 16, **MULTI}),
    "MaskablePPO": ("MaskablePPO", {}, {**ON, **BATCHES}),
    "MaskablePPO-Dict": ("MaskablePPO", DICT, {**ON, **BATCHES, **MULTI}),
    "RecurrentPPO": ("RecurrentPPO", {}, {**ON, **BATCHES, **LSTM, "policy": "MlpLstmPolicy"}),
    "RecurrentPPO-Dict": ("RecurrentPPO", DICT, {**ON, **BATCHES, **LSTM, "policy": "MultiInputLstmPolicy"}),
    "DQN": (DQN, {}, OFF),
    "DQN-Dict": (DQN, DICT, {**OFF, **MULTI}),
    "DQN-n-step": (DQN, {}, {**OFF, "n_step": 3}),
    "DQN-thrifty": (DQN, {}, {**OFF, **THRIFTY}),
    "DQN-one-env": (DQN, {"n": 1}, {**OFF, "buffer_size": 70}),
    "SAC": (SAC, MOVES, OFF),
    "SAC-Dict": (SAC, {**MOVES, **DICT}, {**OFF, **MULTI}),
    "SAC-n-step": (SAC, MOVES, {**OFF, "n_step": 3}),
    "SAC-thrifty": (SAC, MOVES, {**OFF, **THRIFTY}),
    "TD3": (TD3, MOVES, OFF),
    "TD3-Dict": (TD3, {**MOVES, **DICT}, {**OFF, **MULTI}),
    "TD3-episodes": (TD3, {**MOVES, "n": 1}, {**OFF, "train_freq": (2, "episode")}),
    "DDPG": (DDPG, MOVES, OFF),
    "TQC": ("TQC", MOVES, OFF),
    "TQC-n-step": ("TQC", MOVES, {**OFF, "n_step": 3}),
    "QRDQN": ("QRDQN", {}, OFF),
    "QRDQN-Dict": ("QRDQN", DICT, {**OFF, **MULTI}),
}


def assert_same_training(expected, got):
    """Every number that training read or made."""
    for name, parameter in expected.policy.state_dict().items():
        assert torch.equal(parameter, got.policy.state_dict()[name]), name
    one = expected.rollout_buffer if hasattr(expected, "rollout_buffer") else expected.replay_buffer
    two = got.rollout_buffer if hasattr(got, "rollout_buffer") else got.replay_buffer
    fields = ["rewards", "advantages", "returns"] if hasattr(expected, "rollout_buffer") else ["rewards", "dones"]
    if fields[1] == "dones":
        two.score_pending()  # the last step, which no sample has asked for
    for field in fields:
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field), field)
    assert len(np.unique(one.rewards)) > 10


@pytest.mark.parametrize("name", COMBINATIONS)
def test_training_is_the_immediate_paths_to_the_bit(name):
    algorithm, env, kwargs = COMBINATIONS[name]
    algorithm = contrib(algorithm) if isinstance(algorithm, str) else algorithm
    trained = []
    for deferred in (False, True):
        algo = make(algorithm, walk(deferred, **env), **copy.deepcopy(kwargs))
        trained.append(algo.learn(144, callback=CLIPRewardLogger()))
    assert_same_training(*trained)
    _, model = (algo.get_env().reward_model for algo in trained)
    assert max(model.batches) == 10, "micro-batches were never full"


PPO_KWARGS = {**ON, **BATCHES}


def both(algorithm, wrap, steps=144, **kwargs):
    """The algorithm trained on ``wrap(deferred)``, immediate and deferred."""
    return [make(algorithm, wrap(deferred), **copy.deepcopy(kwargs)).learn(steps) for deferred in (False, True)]


def frozen(deferred):
    venv = DeferredVecNormalize(walk(deferred), training=False)
    venv.ret_rms.var = np.float64(5)
    return venv


@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, PPO_KWARGS), (DQN, OFF)], ids=["PPO", "DQN"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda deferred: walk(deferred, model=BackgroundReward()),
        lambda deferred: walk(deferred, n=2, vec_env_cls=SubprocVecEnv),
        lambda deferred: walk(deferred, n=23),  # one step fills two micro-batches
        lambda deferred: VecFrameStack(walk(deferred), 2),
        lambda deferred: VecNormalize(walk(deferred), norm_reward=False),
        lambda deferred: (DeferredVecNormalize if deferred else VecNormalize)(walk(deferred), gamma=0.9),
        frozen,
    ],
    ids=["background", "subproc", "many-envs", "frame-stack", "norm-obs", "norm-reward", "norm-frozen"],
)
def test_around_the_env_too(wrap, algorithm, kwargs):
    immediate, deferred = both(algorithm, wrap, **kwargs)
    assert_same_training(immediate, deferred)
    stats = deferred.get_vec_normalize_env()
    if isinstance(stats, DeferredVecNormalize):
        one, two = (pickle.loads(pickle.dumps(algo.get_vec_normalize_env())).ret_rms for algo in (immediate, deferred))
        assert (one.mean, one.var, one.count) == (two.mean, two.var, two.count)
        assert (two.mean != 0) == stats.training
    for algo in (immediate, deferred):
        algo.get_env().close()


class StopAt(BaseCallback):
    def __init__(self, calls):
        super().__init__()
        self.stop = calls

    def _on_step(self):
        return self.n_calls != self.stop


@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, PPO_KWARGS), (DQN, OFF)], ids=["PPO", "DQN"])
def test_a_stop_in_the_middle_of_a_rollout(algorithm, kwargs):
    trained = []
    for deferred in (False, True):
        algo = make(algorithm, walk(deferred), **kwargs)
        algo.learn(144, callback=StopAt(21))
        algo.learn(96, reset_num_timesteps=False)
        trained.append(algo.learn(96))
    assert_same_training(*trained)


@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, PPO_KWARGS), (DQN, OFF)], ids=["PPO", "DQN"])
def test_the_embedded_models_rewards_agree(algorithm, kwargs):
    """To 1e-6, for its results vary by 1e-7 with the size of the batch."""
    model = CLIPRewardModel.from_pretrained(
        "embedded", goal_prompts="pole vertically upright on top of the cart", baseline_prompts="pole and cart"
    )

    def cart_pole(deferred):
        return CLIPRewardVecEnv(make_vec_env("CartPole-v1", 2, fixed_horizon=9), model, deferred=deferred)

    immediate, deferred = both(algorithm, cart_pole, steps=48 if algorithm is PPO else 56, **kwargs)
    buffers = ["rollout_buffer" if algorithm is PPO else "replay_buffer"] * 2
    one, two = map(getattr, (immediate, deferred), buffers)
    if algorithm is DQN:
        two.score_pending()
    assert len(np.unique(one.rewards)) > 20
    np.testing.assert_allclose(two.rewards, one.rewards, rtol=0, atol=1e-6)
    for mine, its in zip(immediate.policy.parameters(), deferred.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-5)


# --- no number before it is known ----------------------------------------------------------------------------


def pending(n=3):
    venv = walk(True, n)
    venv.reset()
    return venv.step(np.zeros(n, int))[1]


@pytest.mark.parametrize(
    "read",
    [
        np.array,
        np.asarray,
        list,
        sum,
        bool,
        np.sum,
        np.add.reduce,
        torch.as_tensor,
        lambda rewards: float(rewards[0]),
        lambda rewards: rewards[0].item(),
        lambda rewards: rewards.mean(),
        lambda rewards: float((rewards + 1)[0]),
        lambda rewards: np.zeros((2, 3)).__setitem__(0, rewards),
        lambda rewards: np.copyto(np.zeros(3), rewards),
        lambda rewards: np.mean(rewards, out=np.zeros(())),
        lambda rewards: np.add.at(np.zeros(3), [0, 1, 2], rewards),
        lambda rewards: np.add(1, rewards, out=np.zeros(3)),
        lambda rewards: np.zeros(3).__iadd__(rewards),
        lambda rewards: rewards.__setitem__(0, 1.0),
        lambda rewards: rewards.__setitem__(0, rewards[0] + 1.0),
        lambda rewards: rewards.__setitem__(0, pending()[0]),
        lambda rewards: f"{rewards[0] > 1 and 1}",
    ],
)
def test_reading_pending_rewards_raises(read):
    with pytest.raises((TypeError, AttributeError), match=r"deferred_kwargs\(PPO, venv\)"):
        read(pending())


def test_pending_rewards_take_additions_and_copies():
    venv = walk(True, 3)
    venv.reset()
    rewards = venv.step(np.ones(3, int))[1]
    rewards[1] += torch.ones(1)
    kept = [rewards.copy(), rewards.astype(np.float32), copy.deepcopy(rewards)]
    rewards[2] += 2.0
    expected = np.sin(
        (128 + 20 * np.array([env.unwrapped.x for env in venv.venv.envs])).astype(np.uint8) / np.float32(40)
    )
    for each in kept:
        np.testing.assert_array_equal(each.numbers(), expected + np.array([0, 1, 0], np.float32))
    np.testing.assert_array_equal(rewards.numbers(), expected + np.array([0, 1, 2], np.float32))
    with pytest.raises(TypeError, match="deferred_kwargs"):
        np.array(rewards.astype(np.float64))
    with pytest.raises(TypeError, match="deferred_kwargs"):
        np.array(pickle.loads(pickle.dumps(rewards)))


class GoalWalkEnv(WalkEnv):
    """What HerReplayBuffer wants."""

    def __init__(self, render_mode="rgb_array"):
        super().__init__()
        self.observation_space = spaces.Dict(self._thrice(self.observation_space))

    def _thrice(self, line):
        return dict.fromkeys(["observation", "achieved_goal", "desired_goal"], line)

    def _obs(self):
        return self._thrice(np.array([self.x, 0], np.float32))

    def compute_reward(self, achieved, desired, info):
        return np.zeros(len(achieved))


def her():
    return DQN(
        "MultiInputPolicy",
        CLIPRewardVecEnv(make_vec_env(GoalWalkEnv, 1), GreyReward(), deferred=True),
        replay_buffer_class=HerReplayBuffer,
        learning_starts=8,
        buffer_size=80,
    )


@pytest.mark.parametrize(
    ("train", "error", "match"),
    [
        (lambda: PPO("MlpPolicy", walk(True), **PPO_KWARGS).learn(9), TypeError, r"deferred_kwargs\(PPO, venv\)"),
        (lambda: DQN("MlpPolicy", walk(True), **OFF).learn(9), TypeError, r"deferred_kwargs\(PPO, venv\)"),
        (lambda: her().learn(9), TypeError, "HerReplayBuffer can't be used: it relabels"),
        (
            lambda: evaluate_policy(PPO("MlpPolicy", walk(True), device="cpu"), walk(True), 2),
            TypeError,
            "Evaluate on the plain env",
        ),
        (
            lambda: PPO("MlpPolicy", VecNormalize(walk(True)), rollout_buffer_class=CLIPRolloutBuffer).learn(9),
            TypeError,
            "changed on their way.*DeferredVecNormalize in its place",
        ),
        (
            lambda: DQN("MlpPolicy", VecNormalize(walk(True)), replay_buffer_class=CLIPReplayBuffer, **OFF).learn(99),
            ValueError,
            "DeferredVecNormalize in its place",
        ),
        (
            lambda: PPO("MlpPolicy", walk(False), rollout_buffer_class=CLIPRolloutBuffer).learn(9),
            TypeError,
            "type ndarray; required: those of a CLIPRewardVecEnv",
        ),
        (
            lambda: contrib("RecurrentPPO")("MlpLstmPolicy", walk(True), n_steps=8).learn(9),
            TypeError,
            r"use_deferred_buffer\(algo\)",
        ),
    ],
)
def test_what_would_train_on_nothing_raises(train, error, match):
    with pytest.raises(error, match=match):
        train()


@pytest.mark.parametrize(
    ("algorithm", "wrap", "kwargs", "error", "match"),
    [
        (PPO, lambda: walk(False), {}, ValueError, "CLIPRewardVecEnv holds no deferred"),
        (PPO, lambda: walk(False).venv, {}, ValueError, "DummyVecEnv holds no deferred"),
        (PPO, lambda: VecNormalize(walk(True)), {}, ValueError, "put|Put vlmrm_wrap.sb3.DeferredVecNormalize"),
        (PPO, lambda: VecMonitor(VecFrameStack(walk(True), 2)), {}, ValueError, "VecMonitor is outside"),
        (DQN, lambda: VecCheckNan(walk(True)), {}, ValueError, "VecCheckNan is outside"),
        (BaseAlgorithm, lambda: walk(True), {}, TypeError, "BaseAlgorithm is no class of an algorithm"),
        ("PPO", lambda: walk(True), {}, TypeError, "PPO is no class of an algorithm"),
        (PPO, lambda: walk(True), {"n_steps": 3}, ValueError, "PPO takes its n_steps itself"),
        (DQN, lambda: walk(True), {"n_steps": 3}, ValueError, "gamma=None"),
        (DQN, lambda: walk(True), {"n_steps": 0, "gamma": 0.9}, ValueError, "n_steps=0"),
        (DQN, lambda: walk(True, dict_obs=True), {"n_steps": 3, "gamma": 0.9}, ValueError, "no Dict"),
    ],
)
@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`:UserWarning")
def test_deferred_kwargs_refuses(algorithm, wrap, kwargs, error, match):
    with pytest.raises(error, match=match):
        deferred_kwargs(algorithm, wrap(), **kwargs)


def test_recurrent_ppo_is_told_its_way():
    recurrent = contrib("RecurrentPPO")
    with pytest.raises(TypeError, match=r"algo = use_deferred_buffer\(RecurrentPPO"):
        deferred_kwargs(recurrent, walk(True))
    with pytest.raises(ValueError, match="holds no deferred"):
        use_deferred_buffer(recurrent("MlpLstmPolicy", walk(False), n_steps=8))
    for algorithm in (PPO, contrib("TRPO")):
        with pytest.raises(TypeError, match=f"{algorithm.__name__}.* takes its buffer as an argument"):
            use_deferred_buffer(algorithm("MlpPolicy", walk(True), n_steps=8, batch_size=8, device="cpu"))


# --- nothing is lost -----------------------------------------------------------------------------------------


class FlakyReward(PaintedReward):
    """Every third call fails."""

    micro_batch_size = 5

    def __init__(self):
        super().__init__()
        self.calls = 0

    def score(self, frames):
        self.calls += 1
        if self.calls % 3 == 0:
            raise ConnectionError("the line is dead")
        return super().score(frames)


class FlakyBackground(FlakyReward):
    """Fails in its thread."""

    def score_later(self, frames):
        return ThreadPoolExecutor(1).submit(self.score, frames.copy()).result


class FlakyStart(FlakyReward):
    """Fails before there is anything to wait for."""

    def score_later(self, frames):
        scores = self.score(frames)
        return lambda: scores


def insist(call, failures):
    while True:
        try:
            return call()
        except RuntimeError as error:
            failures.append(str(error))


@pytest.mark.parametrize("model", [FlakyReward, FlakyBackground, FlakyStart])
def test_after_a_failure_every_frame_is_scored_and_every_return_right(model):
    venv = CLIPRewardVecEnv(painted(2, (4, 3)), model(), deferred=True)
    venv.reset()
    failures = []
    steps = [insist(lambda: venv.step(np.zeros(2, int)), failures) for _ in range(40)]
    assert len(failures) > 4
    insist(steps[-1][1].step.wait, failures)
    for text in failures:
        assert re.search(r"failed while \d+ frames of deferred .* ConnectionError: the line is dead", text)

    times = [(e + 1, t + 1) for e, length in enumerate([4, 3] * 8) for t in range(length)]
    for (_, rewards, *_), (episode, time) in zip(steps, times, strict=False):
        assert rewards.numbers().tolist() == [painted_value(env, episode, time) for env in range(2)]
    ended = [info["clip_episode"] for *_, infos in steps for info in infos if "clip_episode" in info]
    assert len(ended) == 2 * 11
    for (episode, env), info in zip(((e, env) for e in range(1, 12) for env in range(2)), ended, strict=True):
        length = 4 if episode % 2 else 3
        assert info == {"l": length, "r": sum(painted_value(env, episode, time + 1) for time in range(length))}


def test_a_failure_says_how_many_frames_wait():
    venv = CLIPRewardVecEnv(painted(2, (4,)), FlakyReward(), deferred=True)
    venv.reward_model.calls = 2
    venv.reset()
    for _ in range(3):
        rewards = venv.step(np.zeros(2, int))[1]
    with pytest.raises(RuntimeError, match="FlakyReward failed while 6 frames of deferred rewards"):
        rewards.numbers()
    assert rewards.numbers().tolist() == [103, 10_103]


@pytest.mark.parametrize("bad", [np.zeros((10, 1)), np.zeros(1), 3.0])
def test_scores_of_another_shape_are_refused(bad):
    model = GreyReward()
    model.score = lambda frames: FrameScores(bad, bad, bad)
    venv = walk(True, 10, model=model)
    venv.reset()
    venv.step(np.zeros(10, int))
    with pytest.raises(RuntimeError, match=r"10 frames.*GreyReward\.score returned"):
        for _ in range(2):
            venv.step(np.zeros(10, int))


@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, PPO_KWARGS), (DQN, OFF)], ids=["PPO", "DQN"])
def test_a_failure_stops_training_which_can_go_on(algorithm, kwargs):
    class Dead(GreyReward):
        dead = True

        def score(self, frames):
            if self.dead:
                raise ConnectionError("the line is dead")
            return super().score(frames)

    venv = walk(True, model=Dead())
    algo = make(algorithm, venv, **kwargs)
    with pytest.raises(RuntimeError, match="frames of deferred rewards"):
        algo.learn(144)
    Dead.dead = False
    algo.learn(144)
    buffer = algo.rollout_buffer if algorithm is PPO else algo.replay_buffer
    buffer.score_pending()
    assert np.isfinite(buffer.rewards).all()


def test_an_env_may_be_closed_before_its_frames_are_scored():
    venv = CLIPRewardVecEnv(painted(2, (4,)), PaintedReward(), deferred=True)
    venv.reset()
    rewards = venv.step(np.zeros(2, int))[1]
    venv.close()
    assert venv.reward_model.seen == []
    assert rewards.numbers().tolist() == [101, 10_101]


def test_a_reset_starts_the_clip_return_anew_while_frames_wait():
    venv = CLIPRewardVecEnv(painted(1, (4,)), PaintedReward(), deferred=True)
    venv.reset()
    venv.step(np.zeros(1, int))
    venv.reset()
    for _ in range(4):
        _, rewards, _, infos = venv.step(np.zeros(1, int))
    with pytest.raises(KeyError, match="not before the episode's frames are scored"):
        infos[0]["clip_episode"]["r"]
    rewards.step.wait()
    assert infos[0]["clip_episode"] == {"r": 4 * 200 + 10, "l": 4}
    assert infos[0]["episode"]["r"] == 10
    assert not {"goal_similarity", "baseline_similarity"} & set(infos[0])


@pytest.mark.parametrize("model", [GreyReward, BackgroundReward])
def test_frames_are_dropped_as_soon_as_they_are_scored(model):
    """600 frames of 64 x 64 x 3 bytes are 7.4 MB, a micro-batch of 10 is 0.12 MB."""
    venv = CLIPRewardVecEnv(make_vec_env(lambda: PaintedEnv(size=(64, 64)), 3), model(), deferred=True)
    algo = make(PPO, venv, n_steps=200, **NET, batch_size=60, n_epochs=1)
    algo.learn(600)
    tracemalloc.start()
    algo.learn(600)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


# --- logs and files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, PPO_KWARGS), (DQN, OFF)], ids=["PPO", "DQN"])
def test_the_logger_logs_the_immediate_paths_return(algorithm, kwargs, tmp_path):
    logs = []
    for deferred in (False, True):
        algo = make(algorithm, walk(deferred, n=1), stats_window_size=5, **kwargs)
        algo.train_freq = TrainFreq(1, TrainFrequencyUnit.STEP)  # DQN's
        algo.set_logger(configure(str(tmp_path / str(deferred)), ["csv"]))
        algo.learn(192, callback=CLIPRewardLogger(), log_interval=1)
        algo.logger.close()
        with open(tmp_path / str(deferred) / "progress.csv") as file:
            logs.append([row["rollout/ep_clip_rew_mean"] for row in csv.DictReader(file)])
    immediate, deferred = (log[-8:] for log in logs)
    assert len(set(immediate)) == 8
    if algorithm is PPO:  # a rollout is known at its end
        assert deferred == immediate
    else:  # an episode is known at the next sample, after the log of its end
        assert deferred[1:] == immediate[:-1]


def test_a_replay_buffer_is_saved_with_its_rewards_and_without_the_model(tmp_path):
    trained = []
    for deferred in (False, True):
        algo = make(DQN, walk(deferred), **{**OFF, "learning_starts": 90})
        algo.get_env().reward_model.ballast = np.random.default_rng(0).bytes(1_000_000)
        algo.learn(45)
        algo.save(tmp_path / "policy.zip")
        algo.save_replay_buffer(tmp_path / "buffer.pkl")
        assert (tmp_path / "policy.zip").stat().st_size + (tmp_path / "buffer.pkl").stat().st_size < 200_000
        assert np.isfinite(pickle.loads((tmp_path / "buffer.pkl").read_bytes()).rewards).all()
        loaded = DQN.load(tmp_path / "policy.zip", env=walk(deferred), device="cpu")
        loaded.load_replay_buffer(tmp_path / "buffer.pkl")
        trained.append(loaded.learn(144, reset_num_timesteps=False))
    assert isinstance(trained[1].replay_buffer, CLIPReplayBuffer)
    assert_same_training(*trained)


def test_loaded_on_policy_algorithms_stay_deferred(tmp_path):
    algorithms = [(PPO, "MlpPolicy"), (contrib("RecurrentPPO"), "MlpLstmPolicy")]
    for algorithm, policy in algorithms:
        trained = []
        for deferred in (False, True):
            make(algorithm, walk(deferred), policy, **ON, **BATCHES).learn(48).save(tmp_path / "policy.zip")
            algo = algorithm.load(tmp_path / "policy.zip", env=walk(deferred), device="cpu")
            if deferred and policy == "MlpLstmPolicy":
                use_deferred_buffer(algo)
            trained.append(algo.learn(48))
        assert_same_training(*trained)


def test_statistics_are_saved_without_the_model(tmp_path):
    for wrapper in (partial(VecNormalize, norm_reward=False), DeferredVecNormalize):
        venv = wrapper(walk(True))
        venv.venv.reward_model.ballast = np.zeros(1_000_000, np.uint8)
        venv.reset()
        venv.step(np.zeros(3, int))
        venv.save(tmp_path / "statistics.pkl")
        assert (tmp_path / "statistics.pkl").stat().st_size < 20_000
        loaded = VecNormalize.load(tmp_path / "statistics.pkl", walk(True))
        make(PPO, loaded, **PPO_KWARGS).learn(48)
