"""Looking at a reward before, while and after it is trained on; each tool is a plain function.

The sub-commands of ``vlmrm-wrap``, in modules of their names: ``from vlmrm_wrap.insight.landscape import landscape``.

    similarity    pictures against sentences: cosines, and the zero-shot probabilities
    landscape     the reward over the states of an env, or along a policy's way, for several alphas at once
    doctor        what is wrong with an env, its frames, the prompts and the reward, and how to mend it
    sweep         a finished run's rewards under other alphas and prompts, from what it stored
    video         an episode with what CLIP sees and the curve of the reward

How honest a reward is: ``metrics`` (correlations, EPIC) and ``labels`` (what people say of frames). What the
sub-commands share: ``states`` (an env's state by name), ``policies`` (what acts), ``visits`` (frames of both, scored),
``recording`` (scores.npz), ``checks`` (the doctor's), ``pictures`` (drawn with PIL), ``plotting`` (with matplotlib, an
extra), ``tables``; ``commands`` ties them to the command line.
"""
