"""The model worker: LiteLLM in a child process.

`client` is the parent's side and all that the rest of the product imports. `child` and what it imports (`asking`,
`litellm_adapter`) run in the child alone: LiteLLM costs seconds of CPU and 200 MB, which the alert path must not pay.
Both sides speak `protocol`.
"""
