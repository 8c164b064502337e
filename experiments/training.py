"""A training from its command line to its number: what train_ppo.py, train_dqn.py and train_sac.py have in common.

A run folder holds

    config.yaml          every field of the run, readable by --config
    preset.txt           of a run that began from one of configs/paper, its file
    reward_model.json    the recipe of the reward model and, but for options with prompts, |g|, |b|, g.b
    policy.zip           the checkpoint with the best CLIP return   (+ policy.obs.json with obs statistics)
    final_policy.zip     the policy after the last step             (+ final_policy.obs.json)
    progress.csv         both learning curves and the algorithm's diagnostics; the same in TensorBoard's event files
    resume.zip           all that --resume needs, replay buffer included (resume.py)
    learning_curves.png  evaluation.json  video.mp4
    scores.npz           s.g, s.b and the embeddings of the filmed steps: vlmrm-wrap sweep gives them other prompts

Ctrl-C or SIGTERM, to the script or to its whole process group, ends a training where its next rollout would begin,
writes everything but the evaluation and the video, and leaves with 130 or 143; a second one leaves at once.
``--resume runs/NAME`` then goes on in that folder, with its settings; only --total_steps may be another. It also goes
on after a crash or a kill, from the last save (every save_every steps). With Gymnasium's classic control a resumed
training is the uninterrupted one to the bit; copies of another env begin new episodes, which is said, and so is a
schedule that follows another total_steps.
"""

import json
import sys
from pathlib import Path

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat, configure
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from command_line import read_command_line
from envs import describe, make_reward_model, make_training_env, reward_transforms
from presets import NOTE
from report import plot_learning_curves, record_video
from resume import Resume, State, write_files
from runs import StopRequest, evaluate, load_actor, new_run_folder, rounded, save_policy, true_return, user_errors
from script import Script
from settings import RunConfig
from vlmrm_wrap import RewardModel
from vlmrm_wrap.insight.sweep import SCORES
from vlmrm_wrap.sb3 import CLIPRewardLogger, RewardAlignment
from watch import TrainingWatch


def train(script: Script) -> None:
    """Runs ``script`` on the arguments of this process; leaves by SystemExit if there is no number to print."""
    stop = StopRequest()
    asked, state = read_command_line(script, sys.argv[1:])
    config = asked.config
    torch.set_num_threads(config.threads)
    _say_what_may_surprise(script, config)
    with user_errors():
        script.check_actions(config.env)
        reward_model = make_reward_model(config.reward)
        gamma = script.settings(config).gamma
        transforms = reward_transforms(config.reward, gamma)
        venv = make_training_env(
            config.env, config.reward, reward_model, transforms, config.normalize, seed=config.seed, gamma=gamma
        )
        algo = script.make(config, venv)
        folder = asked.folder or _new_folder(config)
    print(f"run folder: {folder}")
    (folder / "config.yaml").write_text(asked.text)
    if asked.preset is not None:
        (folder / NOTE).write_text(f"{asked.preset.name}\n")
    (folder / "reward_model.json").write_text(json.dumps(describe(config.reward, reward_model), indent=2))
    (folder / "evaluation.json").unlink(missing_ok=True)  # of a run that goes on after its end

    # SB3 averages the env's own return (rollout/ep_rew_mean), CLIPRewardLogger ours, and RewardAlignment compares them.
    algo.set_logger(_logger(folder, state))
    watch = TrainingWatch(folder / "policy.zip", config.window, config.total_steps, script.rollout_steps(config))
    alignment = [] if config.reward.control else [RewardAlignment()]
    callbacks = [CLIPRewardLogger(), *alignment, watch]
    remembering = [*callbacks, *transforms]
    resume = Resume(folder, asked.text, config.save_every, stop, remembering, reward_model, state, config.seed)
    del state  # of a replay buffer there may be gigabytes: resume lets go of them when they are put back
    try:
        with stop.during_training():
            if resume.saved < config.total_steps:
                algo.learn(config.total_steps, callback=CallbackList([*callbacks, resume]), log_interval=None)
                resume.save(rollout_started=False)
            else:  # it was ended between its last step and its report
                resume.init_callback(algo)
                resume.put_back()
        algo.dump_logs()  # a last row, for the latest updates are in none so far; a resumed run does without
    finally:
        watch.close()
        save_policy(algo, folder / "final_policy.zip")
        algo.logger.close()
        venv.close()
    try:
        _say_which_is_best(algo, watch, folder)
        if stop.signum is None:
            _report(config, algo, reward_model, folder)
    except SystemExit:  # a signal
        print(f"stopped before its report was written; --resume {folder} makes it")
        raise
    if stop.signum is not None:
        print(f"stopped after {algo.num_timesteps} steps, not evaluated; --resume {folder} goes on from {resume.saved}")
        sys.exit(128 + stop.signum)


def _say_which_is_best(algo: BaseAlgorithm, watch: TrainingWatch, folder: Path) -> None:
    if watch.best_step:
        print(f"policy.zip: step {watch.best_step} of {algo.num_timesteps}, CLIP return {rounded(watch.best)}")
    else:
        print(f"policy.zip: the last policy, for fewer than window={watch.clip_returns.maxlen} episodes have ended")
        save_policy(algo, folder / "policy.zip")
    plot_learning_curves(folder / "progress.csv", folder / "learning_curves.png", folder.name, watch.best_step)


def _report(config: RunConfig, algo: BaseAlgorithm, reward_model: RewardModel, folder: Path) -> None:
    """On the checkpoint with the best CLIP return."""
    act = load_actor(algo, folder / "policy.zip")
    result = evaluate(act, config.env, config.evaluation)
    if config.evaluation.video:
        try:
            filmed = record_video(act, config.env, config.evaluation, reward_model, folder / "video.mp4")
            filmed.save(folder / SCORES)
        except Exception as error:  # the film is the one thing here that a run can do without
            print(f"no video: {type(error).__name__}: {error}", file=sys.stderr)
    (folder / "evaluation.json").write_text(json.dumps(result, indent=2))
    if "success_rate" in result:
        print(f"success: {result['success_rate']:.0%} of {len(result['returns'])} episodes")
    print(true_return(result))


def _say_what_may_surprise(script: Script, config: RunConfig) -> None:
    rollout = script.rollout_steps(config)
    if config.total_steps % rollout and config.total_steps < 10 * rollout:
        print(
            f"total_steps={config.total_steps} is trained as {-(-config.total_steps // rollout) * rollout}, in whole "
            f"rollouts of {script.name}.{script.rollout}={rollout // config.env.n_envs} x "
            f"env.n_envs={config.env.n_envs}",
            file=sys.stderr,
        )
    if config.env.horizon is None:
        print("env.horizon is null: where the env ends episodes early, mere survival pays", file=sys.stderr)


def _new_folder(config: RunConfig) -> Path:
    control = f"-{config.reward.control}" if config.reward.control else ""
    default = f"{config.env.id}{control}-seed{config.seed}".replace("/", "_").replace(":", "_")
    return new_run_folder(config.out, config.name, default)


def _logger(folder: Path, state: State | None) -> Logger:
    """SB3's, to progress.csv and TensorBoard; a resumed run adds to the rows that it had when it was saved."""
    logger = configure(str(folder), ["csv", "tensorboard"])  # empties progress.csv
    if state is not None:
        write_files(folder, state)
        for output in logger.output_formats:
            if isinstance(output, CSVOutputFormat):
                rows = (folder / "progress.csv").read_text()
                output.keys = rows.split("\n", 1)[0].split(",") if rows else []
                output.file.seek(0, 2)
            elif isinstance(output, TensorBoardOutputFormat):  # what its writer's purge_step would write
                start = SessionLog(status=SessionLog.START)
                output.writer.file_writer.add_event(Event(step=state["steps"] + 1, session_log=start))
    return logger
