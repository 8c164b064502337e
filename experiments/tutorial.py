"""A reward in plain language, from one frame to a trained policy. Read along while it runs, top to bottom.

    pip install -e ".[train]"
    python experiments/tutorial.py                # three minutes on one CPU core, offline; pictures in runs/tutorial
    python experiments/tutorial.py --steps 20000  # a shorter training, which may not be enough

All of it works for any Gymnasium env that renders, and for a real CLIP (`--encoder ViT-B/32`) instead of the small one
inside the package, which knows little but Gymnasium's simplest envs.
"""

import argparse
import time
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from vlmrm_wrap import CLIPRewardModel, CLIPRewardVectorWrapper, CLIPRewardWrapper, UnknownPromptWarning, make_vec
from vlmrm_wrap.insight.doctor import doctor
from vlmrm_wrap.insight.landscape import landscape
from vlmrm_wrap.insight.sweep import SCORES, sweep
from vlmrm_wrap.insight.video import video
from vlmrm_wrap.sb3 import CLIPRewardLogger, CLIPRewardVecEnv, make_vec_env
from vlmrm_wrap.screens import quiet_pygame

parser = argparse.ArgumentParser("tutorial.py", description=__doc__.split("\n\n")[0])
parser.add_argument("--out", type=Path, default=Path("runs/tutorial"), help="folder for the pictures; %(default)s")
parser.add_argument("--encoder", default="embedded", help="default: %(default)s")
parser.add_argument("--steps", type=int, default=60_000, help="of the training; default: %(default)s")
parser.add_argument("--episodes", type=int, default=20, help="of each evaluation; default: %(default)s")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)  # small networks are fastest so
quiet_pygame()
began = time.perf_counter()


def say(text: str) -> None:
    print("\n" + text.strip(), flush=True)


say("""1. AN ENV WITH A REWARD IN WORDS
The goal says what the picture shows when the task is done, the baseline what it shows anyway. CLIP turns the frame
and both sentences into vectors; the reward is high when the frame's lies towards the goal, seen from the baseline.
alpha says how strictly that is meant. At 0 the reward is the cosine of frame and goal, and the baseline has no say; at
1 all of the frame's vector that does not lie along the way from baseline to goal is left out; 0.5 is between them.""")

goal, baseline = "pole vertically upright on top of the cart", "pole and cart"
try:
    model = CLIPRewardModel.from_pretrained(options.encoder, goal_prompts=goal, baseline_prompts=baseline, alpha=0.5)
except (gym.error.Error, OSError, RuntimeError, ValueError) as error:  # no such encoder, or no network to fetch it
    raise SystemExit(f"error: {' '.join(str(error).split())}") from error
env = CLIPRewardWrapper(gym.make("CartPole-v1", render_mode="rgb_array"), model)
env.reset(seed=0)
*_, reward, terminated, truncated, info = env.step(env.action_space.sample())
print(f"one step: reward {reward:.3f}; the env itself paid {info['env_reward']}")
print(f"cosine with the goal {info['goal_similarity']:.3f}, with the baseline {info['baseline_similarity']:.3f}")

say("""2. A GOOD FRAME AND A BAD ONE
CartPole's state can be set by hand (position, speed, angle, angular speed), so we can ask about any picture.""")

frames = []
for angle in (0.0, 1.2):
    env.unwrapped.state = np.array([0.0, 0.0, angle, 0.0])
    frames.append(env.render())
scores = model.score(np.stack(frames))
print(f"upright {scores.rewards[0]:.3f}, fallen by 69 degrees {scores.rewards[1]:.3f}")
for alpha in (0.0, 0.5, 1.0):  # the similarities are enough for any alpha: nothing is encoded again
    upright, fallen = model.rewards_at(alpha, scores)
    print(f"alpha {alpha}: upright {upright:.3f}, fallen {fallen:.3f}, difference {upright - fallen:.3f}")
Image.fromarray(np.concatenate(frames, axis=1)).save(options.out / "good_and_bad.png")

say("""3. THE LANDSCAPE
Two frames can mislead. Here is the reward over all angles of the pole: does it rise towards the goal, everywhere?
The last column is its rank correlation with the height of the pole's tip: 1 is a perfect order, 0 none.""")

plain = gym.make("CartPole-v1", render_mode="rgb_array")
good = landscape(plain, model)
print(good)
good.plot(options.out / "landscape.png")

say("""4. A BAD PROMPT
Sentences that sound right to us may mean nothing in a picture. Compare these goals before you train on one.""")

goals = [goal, "the pole has fallen over", "maximise the long-term utility of the apparatus"]
for text in goals:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UnknownPromptWarning)
        other = landscape(plain, model.with_settings(goal_prompts=[text]), alphas=[0.5])
    print(
        f"{other.correlations['upright'][0.5]:6.2f}  {text}"
        + "   <- has words that the encoder doesn't know" * bool(told)
    )

say("""5. THE DOCTOR
It looks at random steps of the env and says what would spoil a training, and how to mend it.""")

diagnosis = doctor(plain, goal_prompts=goal, baseline_prompts=baseline, encoder=options.encoder)
print(diagnosis)
if any(finding.about == "ends" and finding.severity == "error" for finding in diagnosis.findings):
    print(
        "\nThe reward is positive and CartPole ends when the pole falls, so merely surviving would pay, whatever the\n"
        "words say. Below, fixed_horizon makes every episode equally long: only the words can teach."
    )

say("""6. MANY ENVS AT ONCE
A vector env has the frames of all its envs scored as one batch.""")

envs = CLIPRewardVectorWrapper(make_vec("CartPole-v1", num_envs=8), model)
envs.reset(seed=0)
envs.action_space.seed(0)
start = time.perf_counter()
for _ in range(25):
    _, rewards, *_ = envs.step(envs.action_space.sample())
print(f"rewards of one step: {np.round(rewards, 2)}")
print(f"{25 * 8 / (time.perf_counter() - start):.0f} env steps per second, rendered and scored")
envs.close()

best = 500 * scores.rewards[0]
say(f"""7. TRAINING
PPO for {options.steps} steps on that sentence. Episodes have 500 steps, and a pole that stands for all of them is paid
{best:.0f}. The env's own return is shown to compare; the policy never sees it.""")

rollout = 8 * 32  # env steps between two updates
shown = rollout * max(options.steps // rollout // 7, 1)


class Progress(CLIPRewardLogger):
    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        if self.num_timesteps % shown == 0 and not np.isnan(self.ep_clip_rew_mean):  # NaN until an episode has ended
            own = np.mean([episode["r"] for episode in self.model.ep_info_buffer or [{"r": np.nan}]])
            print(
                f"step {self.num_timesteps:6d}: CLIP return {self.ep_clip_rew_mean:6.1f}, env's own {own:6.1f}",
                flush=True,
            )


venv = CLIPRewardVecEnv(make_vec_env("CartPole-v1", n_envs=8, seed=0, fixed_horizon=500), model)
ppo = PPO(
    "MlpPolicy",
    venv,
    n_steps=rollout // venv.num_envs,
    batch_size=256,
    n_epochs=20,
    gamma=0.98,
    gae_lambda=0.8,
    learning_rate=lambda remaining: 1e-3 * remaining,  # both fall to 0, so that the policy settles
    clip_range=lambda remaining: 0.2 * remaining,
    stats_window_size=16,
    seed=2,  # with 0 the untrained network happens to balance the pole, which would teach nobody anything
    device="cpu",
)
test_env = Monitor(gym.make("CartPole-v1"))  # the unmodified env: its own ends, its own reward
test_env.reset(seed=10_000)
before, _ = evaluate_policy(ppo, test_env, n_eval_episodes=options.episodes)
progress = Progress()
ppo.learn(options.steps, callback=progress)
ppo.save(options.out / "policy.zip")
after, _ = evaluate_policy(ppo, test_env, n_eval_episodes=options.episodes)
print(f"true return, mean of {options.episodes} episodes: {before:.1f} untrained, {after:.1f} trained; 500 is the best")
if after < 475:
    print("It has not learnt it: some seeds don't, and short trainings can't.")
    if not np.isnan(progress.ep_clip_rew_mean):
        print(f"The CLIP return, {progress.ep_clip_rew_mean:.0f} of {best:.0f}, says so without the env's own reward.")

say("""8. WHAT IT DOES, AND WHAT IT IS PAID
A film: the frame, what CLIP sees of it, and the reward's curve. What the rewards are made of is kept, so that other
alphas need no new film.""")

recording = video(
    plain, model, lambda obs: ppo.predict(obs, deterministic=True)[0], options.out / "episode.mp4", max_steps=100
)
recording.save(options.out / SCORES)
print(sweep(options.out / SCORES))

for each in (env, plain, venv, test_env):
    each.close()
say(f"""Done in {time.perf_counter() - began:.0f} s. In {options.out}: good_and_bad.png, landscape.png, episode.mp4.
Next: docs/choosing_prompts.md, docs/reading_the_doctor.md, and experiments/train_ppo.py for your own env.""")
