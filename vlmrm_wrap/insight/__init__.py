"""Looking at a reward before it is trusted: what each sub-command of ``vlmrm-wrap`` does, as a function.

One module each, most with a function of the module's name: ``from vlmrm_wrap.insight.landscape import landscape``.

    similarity    pictures against sentences: cosines, and the zero-shot probabilities
    landscape     the reward over the states of an env, or along a policy's way, for several alphas at once
    doctor        what is wrong with an env, its frames, the prompts and the reward, and how to mend it
    sweep         a finished run's rewards under other alphas and prompts, from what it stored
    video         an episode with what CLIP sees and the curve of the reward
    labels        sheets of frames for people to judge, and the EPIC distance of a reward to their labels

Beside them: ``metrics`` (correlations, EPIC distances).

What they share: ``states`` (an env's state by name), ``policies`` (what acts, in which env), ``saved_policies``,
``visits`` (frames of both, scored), ``rewards`` (a run's, with something changed), ``recording`` (scores.npz),
``checks`` (the doctor's), ``pictures`` (drawn with PIL), ``plotting`` (with matplotlib, an extra), ``tables``;
``commands`` ties them to the command line.
"""
