"""What the proxy answered, as text for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from proxy.durations import format_duration

Object = Mapping[str, Any]


def plain(text: str) -> str:
    """Return `text` on one line, with nothing in it that a terminal would obey: label values come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> None:
    """Print `text` at once, also where the terminal lacks some of its letters."""
    encoding = sys.stdout.encoding or "utf-8"
    # At once: what a classifier prints in `try-classifier` shall stand where it belongs.
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def complain(message: str) -> int:
    """Say on standard error what is wrong. Return the exit status of a command that ends with it."""
    print(plain(message), file=sys.stderr)
    return 1


def mode(found: Object) -> str:
    """Return the mode that holds."""
    switched = found["switched"]
    return _facts(
        [
            ("mode", found["mode"]),
            ("source", _source(found["source"], switched)),
            ("canary", _canary(found["canary"])),
        ]
    )


def decisions(found: Object) -> str:
    """Return a table of decisions."""
    rows = [
        (
            entry["alertmanager_fingerprint"],
            entry["state"],
            _lasts(entry["expires_in_seconds"]),
            _labels(entry["added"]["labels"]) or ("annotations" if entry["added"]["annotations"] else "nothing"),
            _labels(entry["labels"]),
        )
        for entry in found["decisions"]
    ]
    lines = table([("FINGERPRINT", "STATE", "EXPIRES IN", "ADDED", "LABELS"), *rows]) if rows else []
    more = len(rows) < found["total"]
    lines.append(f"decisions: {len(rows)} of {found['total']}" + ("; --limit shows more" if more else ""))
    if found["unlisted"]:
        lines.append(f"{found['unlisted']} more alerts went bare for lack of room, and nothing else is known of them")
    return "\n".join(lines)


def decision(found: Object) -> str:
    """Return all about one decision."""
    lines = [
        ("alert", _labels(found["labels"])),
        ("fingerprint", f"{found['fingerprint']} as it was sent"),
        ("", f"{found['alertmanager_fingerprint']} in Alertmanager"),
        ("state", found["state"]),
        ("expires in", f"{_lasts(found['expires_in_seconds'])}, unless it is seen again"),
        ("added labels", _labels(found["added"]["labels"]) or "none"),
        *_named("annotations", [f"{name}: {text}" for name, text in found["added"]["annotations"].items()]),
        *_named("to be ended", [_labels(labels) or "no labels of ours" for labels in found["former"]]),
        *_named("rules now", [_now(found["rules_now"], what) for what in ("severity", "category")]),
    ]
    return _facts(lines)


def _now(rules: Object, what: str) -> str:
    return f"{what} {rules[what]['is']}, from {_reason(rules[what])}"


def forgotten(found: Object) -> str:
    """Return how many decisions are gone."""
    return f"forgotten: {found['forgotten']}; these alerts are decided anew when they come next, and may page again"


def status(found: Object) -> str:
    """Return how the proxy is doing. What somebody should look at has a mark before it."""
    lines = list(_status(found))
    first = f"alertmanager-ai-proxy {found['version']}, up {_since(found['started_at'])}"
    marked = [(("! " if wrong else "  ") + name, text) for wrong, name, text in lines]
    asks = sum(wrong for wrong, _, _ in lines)
    verdict = f"{asks} to look at, marked with !" if asks else "nothing to look at"
    return f"{plain(first)}: {verdict}\n{_facts(marked)}"


def prompts(found: Sequence[Object], version: str) -> str:
    """Return what would leave about each alert, under a heading for each message."""
    return (
        "\n\n".join("\n".join(_prompt(number, len(found), one, version)) for number, one in enumerate(found, start=1))
        or "no alerts, nothing leaves"
    )


def verdicts(found: Sequence[Object]) -> str:
    """Return what was said about each alert, and who said it."""
    return "\n\n".join("\n".join(_verdict(one)) for one in found) or "no alerts"


def _verdict(one: Object) -> Iterator[str]:
    yield plain(f"=== {one['alertname'] or 'without a name'}, {one['fingerprint'] or 'unknown'}")
    if "why_nothing" in one:
        yield plain(f"no verdict: {one['why_nothing']}")
        return
    why = one["explained"]
    yield _facts(
        [
            ("severity", one["severity"] + (f", from {_reason(why['severity'])}" if why else "")),
            ("category", one["category"] + (f", from {_reason(why['category'])}" if why else "")),
            ("confidence", one["confidence"]),
            *((("source", f"the model {one['model']}"),) if not why else ()),
            *((("why rules", _why_rules(one)),) if why and one["reason"] != "no_model" else ()),
            ("summary", one["summary"]),
            *((("runbook", one["runbook"]),) if one["runbook"] else ()),
            *_named("first steps", list(one["recommendations"])),
        ]
    )


def _why_rules(one: Object) -> str:
    if one["reason"] == "unsure":
        return f"the model {one['model']}, whose text this is, is not sure enough (llm.min_confidence)"
    return f"{one['reason']}: {one['error']}" if one["error"] else str(one["reason"])


def _reason(reason: Object) -> str:
    who = {
        "author": "the author",
        "override": "an override",
        "default": "nobody: no rule says anything",
    }.get(reason["by"], f"rule {reason['by']}")
    return f"{who} ({reason['at']})" if reason["at"] else who


def _prompt(number: int, of: int, one: Object, version: str) -> Iterator[str]:
    yield plain(
        f"=== alert {number} of {of}: {one['alertname'] or 'without a name'}, {one['fingerprint'] or 'unknown'}"
    )
    if not one["messages"]:
        yield plain(f"nothing leaves: {one['why_nothing']}")
        return
    masked = ", ".join(f"{count} {kind}" for kind, count in one["masked"].items())
    size = f"{one['characters']} characters, about {one['tokens']} tokens"
    yield f"prompt {version}, {size}, masked: {masked or 'nothing'}"
    for message in one["messages"]:
        yield f"\n--- {message['role']}"
        yield from map(plain, message["content"].rstrip("\n").split("\n"))


def _status(found: Object) -> Iterator[tuple[bool, str, str]]:
    enriched = found["mode"] == "enriched"
    yield not found["ready"], "ready", "yes" if found["ready"] else "NO: starting or shutting down"
    yield False, "mode", f"{found['mode']} ({_source(found['mode_source'], found['switched'])})"
    yield _configuration(found["configuration"])
    yield False, "canary", _canary(found["canary"])
    since = found["labelling_since"]
    yield False, "labelling", f"alerts that begin after {_time(since)}" if since else "no: new alerts get no labels"
    yield _labelled_by(found)
    yield from _model(found["model"])
    yield from _budget(found["budget"])
    if (saved := found["saved"])["calls"]:
        price = f", {saved['cost_usd']:.4f} USD" if saved["cost_usd"] else ""
        yield False, "saved", f"{saved['calls']:,} calls by the cache, about {saved['tokens']:,} tokens{price}"
    yield from _alertmanager(found["alertmanager"])
    yield from _store(found["store"])
    count, agree = found["replicas"]["count"], found["replicas"]["agree"]
    together = {
        True: "configured alike",
        False: "they DIFFER in version, rules or settings: labels may, too",
        None: "which CANNOT SEE EACH OTHER: they share no store, so compare their modes and settings yourself",
    }[agree]
    yield count > 1 and not agree, "proxies", "1, this one" if count == 1 else f"{count}, {together}"
    for name, peer in found["replicas"]["peers"].items() if count > 1 and agree is not None else ():
        peculiar = f"{peer.get('mode', '?')}, {peer.get('labelled', '?')} labelled, version {peer.get('version', '?')}"
        this = " (this one)" if name == found["replicas"]["name"] else ""
        yield False, "", f"{name}{this}: {peculiar}, settings {peer.get('agreement', '?')}"
    there = found["decisions"]
    draining = "; DRAINING: they keep their labels until they end" if there["labelled"] and not enriched else ""
    yield False, "alerts", f"{there['living']} known, {there['labelled']} of them labelled{draining}"
    if there["full"]:
        yield True, "", "FULL: new alerts go without labels; see store.max_decisions"
    handing = there["handing_over"]
    told = f"{handing} alerts, until Alertmanager is told the end of their former labels" if handing else "none"
    yield False, "handing over", told


def _configuration(configuration: Object) -> tuple[bool, str, str]:
    read = f"read at {_time(configuration['read_at'])}"
    if problems := configuration["problems"]:
        return True, "settings", f"{read}; what was read since CANNOT BE USED: {'; '.join(problems)}"
    if later := configuration["at_next_start"]:
        return True, "settings", f"{read}; WAITING FOR A RESTART: {', '.join(later)}"
    return False, "settings", read


def _labelled_by(found: Object) -> tuple[bool, str, str]:
    model = found["model"]
    if found["mode"] != "enriched":
        return False, "labels by", f"nobody, in mode {found['mode']}"
    if not model["enabled"] and model["state"] != "ready":
        return False, "labels by", "the rules: no model is switched on"
    if why := found["labels_by_rules"]:
        return True, "labels by", f"the RULES: {why}"
    if not found["alertmanager"]["recovered"]:
        return True, "labels by", "the RULES, until it is known what Alertmanager holds"
    if model["state"] != "ready":
        return True, "labels by", f"the RULES: the model is {model['state']}"
    if (models := model["models"]) and all(one["breaker"] == "open" for one in models):
        return True, "labels by", "the RULES: too many calls failed, no model is asked for a while"
    return False, "labels by", "the model, and the rules where it gives no answer in time"


def _model(model: Object) -> Iterator[tuple[bool, str, str]]:
    if not model["enabled"]:
        yield False, "model", "none" if model["state"] != "ready" else "ready"
        return
    outcome, calls = model["last_outcome"], model["calls"] or {"running": 0, "waiting": 0}
    facts = [f"{model['name']} is {model['state']}", f"key {model['key']}"]
    facts.append(model["why"] or f"last call: {outcome or 'none yet'}")
    if calls["running"]:
        facts.append(f"{calls['running']} running, {calls['waiting']} waiting")
    yield model["state"] != "ready" or outcome not in {"ok", None, ""}, "model", ", ".join(facts)
    if spent := _spent(model["models"]):
        yield False, "", f"since the start {spent}"
    for one in model["models"]:
        if one["breaker"] != "closed":
            rests = {"open": "NOT ASKED for a while", "half_open": "NOT ASKED until one call has worked"}
            reasons = "; ".join(filter(None, [one["why"], one["last_error"]]))
            yield True, "", f"{one['name']} is {rests[one['breaker']]}: {reasons}"
        elif one["last_error"] and len(model["models"]) > 1:
            yield True, "", f"{one['name']} failed when it was asked last: {one['last_error']}"


def _budget(budget: Object | None) -> Iterator[tuple[bool, str, str]]:
    if budget is None:
        return
    for unit, of in budget["units"].items():
        spent, limit, released = (
            f"{of[name]:,.0f}" if unit == "tokens" else f"{of[name]:,.4f}" for name in ("spent", "limit", "released")
        )
        yield False, "budget", f"{spent} of {limit} {unit} spent on {budget['day']}, {released} released by now"
    if budget["next_at"]:
        yield True, "", f"SPENT as far as the day has come, the rules decide; next call at {_time(budget['next_at'])}"
    if budget["error"]:
        yield True, "", f"its store is AWAY: {budget['error']}"


def _spent(models: Sequence[Object]) -> str:
    """Return what all models together took; empty before the first request."""
    asked = [one for one in models if one["requests"]]
    if not asked:
        return ""
    spent = f"{sum(one['requests'] for one in asked):,} requests"
    read, written = (sum(one["tokens"][direction] or 0 for one in asked) for direction in ("input", "output"))
    if read or written:
        spent += f", {read:,} tokens in, {written:,} out"
    prices = [one["cost_usd"] for one in asked if one["cost_usd"] is not None]
    if prices:
        spent += f", {'' if len(prices) == len(asked) else 'at least '}{sum(prices):.4f} USD"
    return spent


_STATES: Final = {
    "unknown": "no alerts sent to it yet",
    "answers": "answers",
    "fails": "FAILS: the last POST of alerts was not answered",
    "suspended": "SUSPENDED: it was silent, and is tried with one POST at a time",
}


def _alertmanager(there: Object) -> Iterator[tuple[bool, str, str]]:
    known = f"what it held is known ({there['recovered_alerts']} alerts)"
    unread = "NOT READ yet: alerts labelled before the start may page again; the log says why"
    yield not there["recovered"], "alertmanager", f"{there['url']}, {known if there['recovered'] else unread}"
    for one in there["each"]:
        wrong = one["state"] in ("fails", "suspended")
        yield wrong, "", f"{one['url']}: {_STATES[one['state']]}"
    peers = {None: "it has not said", 0: "it has no cluster"}.get(there["peers"], f"{there['peers']}")
    yield False, "peers", peers
    conflicts = there["identity_conflicts"]
    yield bool(conflicts), "conflicts", f"{conflicts} alerts with MORE THAN ONE identity" if conflicts else "none"


def _store(store: Object) -> Iterator[tuple[bool, str, str]]:
    kind = f"{store['kind']}, {'shared' if store['shared'] else 'of this proxy alone'}"
    yield not store["up"], "store", f"{kind}, " + ("answers" if store["up"] else f"AWAY: {store['error']}")
    if store["unkept"]:
        yield not store["up"], "", f"is still to be told of {store['unkept']} decisions"


def _source(source: str, switched: Object | None) -> str:
    if switched is None:
        return "as configured" if source == "config" else source
    who = f" by {switched['by']}" if switched["by"] else ""
    until = f", until {_time(switched['until'])}" if switched["until"] else ", until the next switch"
    return f"switched{who} from {switched['from']} at {_time(switched['at'])}{until}; kept in {source}"


def _canary(canary: Object) -> str:
    share = "all" if canary["percent"] >= 100 else f"{canary['percent']:g} %, drawn by {canary['by']},"
    return f"{share} of {' or '.join(canary['matchers']) or 'the alerts'}"


def _labels(labels: Mapping[str, str]) -> str:
    """Return labels in one piece, the name first."""
    rest = sorted((name, value) for name, value in labels.items() if name != "alertname")
    inner = ", ".join(f'{name}="{value}"' for name, value in rest)
    alertname = labels.get("alertname", "")
    return f"{alertname}{{{inner}}}" if alertname and inner else alertname or inner


def _lasts(seconds: float) -> str:
    """Return a time as people say it, in its two largest units."""
    size = 3600 if seconds >= 2 * 86_400 else 60 if seconds >= 3600 else 1
    return format_duration(timedelta(seconds=seconds // size * size))


def _since(time: str) -> str:
    begun = datetime.fromisoformat(time)
    return _lasts(max(0.0, (datetime.now(begun.tzinfo) - begun).total_seconds()))


def _time(time: str) -> str:
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _named(name: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for n, line in enumerate(lines):
        yield "" if n else name, line


def _facts(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(table(lines))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, each column as wide as its widest cell; the last one ends where it ends."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
