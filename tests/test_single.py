"""CLIPRewardWrapper: what Gymnasium and Stable-Baselines3 expect of a wrapper."""

import functools
import multiprocessing
import warnings

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import AddWhiteNoise, RecordEpisodeStatistics, RecordVideo, TimeLimit
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from vlmrm_wrap import CLIPRewardModel, CLIPRewardVectorWrapper, CLIPRewardWrapper, make_vec
from vlmrm_wrap.protocols import FrameScores

CARTPOLE = {"goal_prompts": "pole vertically upright on top of the cart", "baseline_prompts": "pole and cart"}


@pytest.fixture(scope="module")
def model():
    return CLIPRewardModel.from_pretrained("embedded", **CARTPOLE)


def cartpole(**kwargs):
    return gym.make("CartPole-v1", render_mode="rgb_array", **kwargs)


def test_three_lines_give_a_reward_in_words(model):
    env = CLIPRewardWrapper(cartpole(), model)
    env.reset(seed=0)
    rewards = []
    terminated = False
    while not terminated:  # pushed to one side, the pole falls
        _, reward, terminated, _, info = env.step(0)
        assert type(reward) is float
        assert info["env_reward"] == 1.0
        assert reward == pytest.approx(float(model.rewards_at(0.5, _scores(info))[0]), abs=1e-6)
        rewards.append(reward)
    assert max(rewards[:3]) > rewards[-1] + 0.02
    assert env.metadata["render_modes"] == ["rgb_array"]
    env.close()


def _scores(info):
    goal, baseline = (np.array([info[key]], np.float32) for key in ("goal_similarity", "baseline_similarity"))
    return FrameScores(0 * goal, goal, baseline)


def test_both_env_checkers_pass(model):
    env = CLIPRewardWrapper(cartpole(), model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version", category=UserWarning)
        # What it says of CartPole itself, which is not ours to change.
        warnings.filterwarnings("ignore", message=".*Box observation space", category=UserWarning)
        check_env(env)
    sb3_check_env(env)
    env.close()


def test_the_spec_holds_the_recipe_and_rebuilds_the_env(model):
    env = CLIPRewardWrapper(cartpole(), model)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    rewards = []
    for each in (env, again):
        each.reset(seed=1)
        rewards.append([each.step(0)[1] for _ in range(3)])
        each.close()
    assert rewards[0] == rewards[1]


def test_a_recipe_serves_in_place_of_a_model(model):
    env = CLIPRewardWrapper(cartpole(), model.recipe)
    assert env.reward_model.recipe == model.recipe


def test_a_fake_without_a_recipe_leaves_no_spec_to_rebuild():
    env = CLIPRewardWrapper(cartpole(), PaintedReward())
    with pytest.raises(TypeError, match="reward_model"):
        gym.make(env.spec)


@pytest.mark.parametrize("not_a_model", ["ViT-B/32", None, PaintedReward])
def test_what_is_no_reward_model_is_refused(not_a_model):
    if not_a_model is PaintedReward:
        with pytest.raises(TypeError):
            CLIPRewardWrapper(PaintedEnv(), not_a_model).step(0)
    else:
        with pytest.raises(TypeError, match=r"CLIPRewardModel.from_pretrained\('embedded'"):
            CLIPRewardWrapper(PaintedEnv(), not_a_model)


@pytest.mark.parametrize(
    ("scores", "error", "match"),
    [
        (lambda n: np.zeros((3, n, 1), np.float32), ValueError, r"shape \[\(1, 1\)\] for 1 frames"),
        (lambda n: np.zeros(n, np.float32), TypeError, "returned ndarray; required: FrameScores"),
        (lambda n: None, TypeError, "returned NoneType"),
    ],
)
def test_scores_of_another_shape_are_refused(scores, error, match):
    scorer = type("Wrong", (), {"score": lambda self, frames: scores(len(frames))})()
    env = CLIPRewardWrapper(PaintedEnv(), scorer)
    env.reset()
    with pytest.raises(error, match=match):
        env.step(0)


def test_record_video_is_not_disturbed_inside_or_outside(tmp_path):
    scorer = PaintedReward()
    videos = []
    for order in ("inside", "outside", "alone"):
        env = PaintedEnv(0, (3,))
        folder = str(tmp_path / order)
        video = functools.partial(RecordVideo, video_folder=folder, episode_trigger=lambda episode: False)
        env = {
            "inside": lambda env, video=video: CLIPRewardWrapper(video(env), scorer),
            "outside": lambda env, video=video: video(CLIPRewardWrapper(env, scorer)),
            "alone": lambda env, video=video: video(env),
        }[order](env)
        recorder = env.env if order == "inside" else env
        recorder.episode_trigger = lambda episode: True
        recorder.stop_recording = lambda recorder=recorder: videos.append(list(recorder.recorded_frames))
        env.reset()
        for _ in range(3):
            env.step(0)
        recorder.stop_recording()
        recorder.recording, recorder.recorded_frames = False, []
    inside, outside, alone = ([tuple(int(v) for v in frame[0, 0]) for frame in video] for video in videos[-3:])
    assert inside == outside == alone == [(0, 1, step) for step in range(4)]
    assert scorer.seen == [(0, 1, 1), (0, 1, 2), (0, 1, 3)] * 2


def test_renders_that_draw_random_numbers_cost_one_draw_a_step():
    """AddWhiteNoise takes its noise from the env's own generator, so a second render would change the dynamics."""

    class Seen:
        def __init__(self):
            self.frames = []

        def score(self, frames):
            self.frames += [frame.copy() for frame in frames]
            zeros = np.zeros(len(frames), np.float32)
            return zeros, zeros, zeros

    noisy = functools.partial(AddWhiteNoise, probability_of_noise_per_pixel=0.5)
    single, vector = Seen(), Seen()
    env = CLIPRewardWrapper(noisy(cartpole()), single)
    env.reset(seed=5)
    for _ in range(4):
        env.step(0)
    by_hand = noisy(cartpole())
    by_hand.reset(seed=5)
    wanted = []
    for _ in range(4):
        by_hand.step(0)
        wanted.append(by_hand.render())
    envs = CLIPRewardVectorWrapper(make_vec("CartPole-v1", 1, wrappers=[noisy]), vector)
    envs.reset(seed=[5])
    for _ in range(4):
        envs.step([0])
    for frames in (single.frames, vector.frames):
        assert all((a == b).all() for a, b in zip(frames, wanted, strict=True))


def test_a_time_limit_stays_truncated():
    env = CLIPRewardWrapper(TimeLimit(PaintedEnv(0, (50,)), 2), PaintedReward())
    env.reset()
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)


def test_statistics_outside_count_our_return():
    env = RecordEpisodeStatistics(CLIPRewardWrapper(PaintedEnv(0, (2,)), PaintedReward()))
    env.reset()
    env.step(0)
    assert env.step(0)[4]["episode"]["r"] == 101 + 102


def _wrap_in_worker(queue):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = type("Light", (PaintedReward,), {"recipe": {"encoder": "embedded"}})()
        CLIPRewardWrapper(PaintedEnv(), model)
    queue.put([str(warning.message) for warning in caught])


def test_in_a_worker_process_it_warns_of_one_clip_each():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_wrap_in_worker, args=(queue,))
    process.start()
    messages = queue.get()
    process.join()
    assert len(messages) == 1
    assert "CLIPRewardVectorWrapper(make_vec(...), model)" in messages[0]


STEPS, SEEDS = 40, (0, 1, 2)


def zigzag(step):
    return step // 3 % 2  # enough of a push to end several episodes


@pytest.fixture(scope="module")
def wanted(model):
    """Rewards of each seed's env alone, over the ends of its episodes."""
    rewards = np.zeros((len(SEEDS), STEPS))
    ends = 0
    for i, seed in enumerate(SEEDS):
        env = CLIPRewardWrapper(cartpole(max_episode_steps=15), model)
        env.reset(seed=seed)
        for step in range(STEPS):
            _, rewards[i, step], terminated, truncated, _ = env.step(zigzag(step))
            if terminated or truncated:
                env.reset()
                ends += 1
        env.close()
    assert ends > len(SEEDS)
    return rewards


class TestEmbeddedModelOnEveryPath:
    """With the real encoder the paths agree to 1e-6: its own results vary with the batch size by about 1e-7."""

    @pytest.mark.parametrize(
        ("mode", "context"),
        [(mode, None) for mode in AutoresetMode]
        + [(AutoresetMode.NEXT_STEP, context) for context in ("fork", "spawn", "forkserver")],
    )
    def test_vector(self, model, wanted, mode, context):
        kwargs = {"vectorization_mode": "async", "vector_kwargs": {"context": context}} if context else {}
        envs = make_vec("CartPole-v1", len(SEEDS), autoreset_mode=mode, max_episode_steps=15, **kwargs)
        envs = CLIPRewardVectorWrapper(envs, model)
        envs.reset(seed=list(SEEDS))
        got = [[] for _ in SEEDS]
        while min(map(len, got)) < STEPS:
            actions = np.array([zigzag(len(rewards)) for rewards in got])
            _, rewards, terminations, truncations, infos = envs.step(actions)
            for i in np.flatnonzero(infos["_env_reward"]):
                got[i].append(rewards[i])
            over = terminations | truncations
            if mode == AutoresetMode.DISABLED and over.any():
                envs.reset(options={"reset_mask": over})
        envs.close()
        np.testing.assert_allclose([rewards[:STEPS] for rewards in got], wanted, atol=1e-6)

    def test_sb3(self, model, wanted):
        from vlmrm_wrap.sb3 import CLIPRewardVecEnv, make_vec_env

        venv = make_vec_env("CartPole-v1", len(SEEDS), seed=0, env_kwargs={"max_episode_steps": 15})
        venv = CLIPRewardVecEnv(venv, model)
        venv.reset()
        got = [venv.step(np.full(len(SEEDS), zigzag(step)))[1] for step in range(STEPS)]
        venv.close()
        np.testing.assert_allclose(np.transpose(got), wanted, atol=1e-6)
