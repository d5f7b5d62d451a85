"""How a setting names a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from proxy import classifiers
from proxy.config.kinds import Kind, UrlKind


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model, and where it is."""

    provider: str
    model: str
    """As the provider spells it."""
    base_url: str | None = None
    """None for the usual address."""

    @property
    def door(self) -> str:
        """What a key opens, and what is behind an address: the provider, or one classifier of the user's own."""
        own = self.provider == classifiers.PROVIDER
        return f"{self.provider}/{self.model.partition('/')[0]}" if own else self.provider

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}" + (f"@{self.base_url}" if self.base_url else "")


class ModelNameKind(Kind[ModelName]):
    """`PROVIDER/MODEL`, or `PROVIDER/MODEL@BASE_URL`; an `@` with no URL behind it belongs to the model's name."""

    name = "model"
    metavar = "PROVIDER/MODEL[@BASE_URL]"
    want = "want for example anthropic/claude-haiku-4-5 or ollama/llama3.2@http://127.0.0.1:11434"

    def _parse(self, text: str) -> ModelName:
        name, at, url = text.partition("@http")
        if not at and "://" in text:
            # Not repeated in a message: it may hold a password.
            raise ValueError(f"an address stands behind the model's name and an @, {self.want}")
        provider, slash, model = name.partition("/")
        if not slash:
            raise ValueError(f"{name!r} names no provider; {self.want}")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", provider):
            raise ValueError(f"bad provider {provider!r}, {self.want}")
        if not model or re.search(r"\s", model):
            raise ValueError(f"bad name of a model {model!r}, {self.want}")
        return ModelName(provider, model, UrlKind().parse("http" + url) if at else None)


Model = Annotated[ModelName, ModelNameKind()]
