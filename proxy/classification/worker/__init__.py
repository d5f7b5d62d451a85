"""The model worker: LiteLLM, and classifiers of the user's own, in a child process.

`client` is the parent's side. `child` and what it imports (`making`, `custom`, `asking`, `litellm_adapter`) run in the
child alone, and in the command `try-classifier` by way of `trial`: LiteLLM costs seconds of CPU and 170 MiB, which the
alert path must not pay. Both sides speak `protocol`. `keys`, `prices` and `listed` tell
without LiteLLM what is to be known of its providers before it is loaded.
"""
