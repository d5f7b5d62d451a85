"""`alertmanager-ai-proxy demo`: the proxy between real programs, and a table of what is routed where.

play           what happens, in its order
programs       the programs that must be there, and the ports they take
children       processes that end with the demo, and tether.py, which sees to that when the demo is killed
local_model    the small model of `--model=local`, and model-server.mjs, which serves it
notifications  the webhook receiver, and the table of what it got
rules.yml prometheus.yml alertmanager.yml   what the two programs are given; the last two with $names to fill in
"""

from proxy.demo.play import run

__all__ = ["run"]
