"""The model worker: LiteLLM, and classifiers of the user's own, in a child process.

`client` is the parent's side and all that the rest of the product imports. `child` and what it imports (`making`,
`custom`, `asking`, `litellm_adapter`) run in the child alone, and in the command `try-classifier`: LiteLLM costs
seconds of CPU and 200 MB, which the alert path must not pay. Both sides speak `protocol`.
"""
