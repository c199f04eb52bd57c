"""The first door for whoever runs things: optimizers, the loop, the run folder. `python -m ep.train` runs the main job.

    job.py         the main job: from a command line to a run folder
    optimizers.py  how gradients change parameters
    loop.py        an epoch, an evaluation, chunks and threads
    settings.py    which settings there are: name, default, meaning, when they have an effect
    experiment.py  presets, and from settings to network, gradient and optimizer
    equilibrium.py how far the network is from its fixed point, and the estimate from the gradient there
    runs.py        the run folder: log, checkpoint, picture, result
    claim.py       one process in a run folder
    checkpoint.py  what resuming needs, in one file
    curves.py      the log as a picture
    watch.py       what looks like a run but learns nothing
    parallel.py    one training by many processes
    machine.py     cores, and errors in one sentence
    commandline.py options
"""
