"""Files for listeners, in exporter-toolkit's form: `tests/testdata/web_config`, `what.kind.yml`.

Of the kinds, `good` is taken by Alertmanager and by the proxy, `bad` by neither, and `refused` by Alertmanager alone.
The first line of the latter two is a comment with what the proxy says of them; `since` names the first version of
Alertmanager that knows what is in the file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from certificates import Authority

DIRECTORY = Path(__file__).parent / "testdata" / "web_config"


@dataclass(frozen=True)
class Example:
    path: Path

    def __str__(self) -> str:
        return self.path.name.removesuffix(".yml")

    @property
    def kind(self) -> str:
        return str(self).rpartition(".")[2]

    @property
    def says(self) -> str:
        """What the proxy says of it."""
        return self.path.read_text().splitlines()[0].removeprefix("# ")

    @property
    def since(self) -> tuple[int, ...]:
        found = re.search(r"^# since (\S+)$", self.path.read_text(), re.MULTILINE)
        return tuple(map(int, found[1].split("."))) if found else (0,)

    def put(self, directory: Path) -> Path:
        """Write the file beside the certificates that it names, and return where."""

        def pem(match: re.Match[str]) -> str:
            return json.dumps((directory / match[1]).read_text())

        written = directory / self.path.name
        written.write_text(re.sub("@([a-z.]+)@", pem, self.path.read_text()))
        return written


EXAMPLES = [Example(path) for path in sorted(DIRECTORY.glob("*.yml"))]


def certificates(directory: Path) -> Authority:
    """Make what the files name: server.pem, server.key, client.key and ca.pem."""
    ca = Authority(directory)
    ca.files("server", "127.0.0.1", "localhost")
    ca.files("client", "prometheus.example")
    return ca
