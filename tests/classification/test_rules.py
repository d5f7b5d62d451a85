"""The rules decide from labels alone, alike on every replica, and never against the author."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.alert import Alert
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.rules import NAME_LENGTH, Rules, words
from proxy.errors import ConfigError

SHIPPED = Rules.shipped()
AGAIN = Rules.parse(resources.files("proxy.classification").joinpath("rules.yaml").read_text("utf-8"), "again")
"""The shipped table as another replica reads it."""

EXAMPLES = {
    # rule: alertnames it must catch
    "always-firing": ["Watchdog", "InfoInhibitor", "DeadMansSwitch", "DeadMansSnitch"],
    "certificate-expired": ["IngressCertificateExpired", "TLSCertInvalid"],
    "certificate-expiring": ["WebCertExpiringIn7Days", "SSLCertificateExpiry"],
    "credentials-failing": ["SSHBruteForce", "LoginFailuresHigh", "UnauthorizedApiCalls"],
    "attack-suspected": ["FalcoRuleTriggered", "DDoSAttack", "AuditLogTampered"],
    "secrets-store-trouble": ["VaultIsSealed", "ExternalSecretsNotRefreshed"],
    "data-corruption": ["LedgerDataCorruption", "ChecksumMismatchOnPool"],
    "disk-failing": ["RAIDArrayBroken", "SmartSelftestBad", "NVMeWearout"],
    "filesystem-readonly": ["RootFilesystemReadOnly", "DataVolumeNotMounted"],
    "inodes-exhausted": ["NodeInodesLow"],
    "filesystem-filling": ["KubePersistentVolumeFillingUp", "DiskWillFillIn4Hours", "LowDiskWatermark"],
    "filesystem-full": ["LogDiskFull", "HostOutOfDiskSpace", "DataVolumeFull"],
    "disk-slow": ["DiskQueueLong", "WalFsyncSlow"],
    "backup-failing": ["NightlyBackupMissed", "SnapshotTooOld"],
    "storage-engine-trouble": ["TSDBHeadTooLarge", "CompactionFallingBehind", "CheckpointFailing"],
    "config-not-loaded": ["ConfigReloadFailed", "ConfigurationInvalid", "GatewayMisconfigured"],
    "clock-skewed": ["HostClockSkew", "NTPOffsetLarge"],
    "out-of-sync": ["AppOutOfSync", "ClusterVersionMismatch", "TerraformDrift"],
    "dns-failing": ["CoreDNSServfail", "DNSLookupBroken"],
    "conntrack-full": ["ConntrackTableFull", "NATPortsExhausted"],
    "packets-lost": ["PacketLossHigh", "TCPRetransmissionsHigh"],
    "link-down": ["InterfaceDown", "BGPSessionDown", "VPNTunnelFlapping"],
    "network-trouble": ["NetworkUnreachable", "BandwidthExhausted"],
    "latency-high": ["CheckoutLatencyP99High", "ApiSlow", "ProxySlowingDown", "ResponseTimeHigh"],
    "dead-letters": ["OrdersDeadLetterQueueNotEmpty"],
    "quorum-lost": ["RaftQuorumLost", "ClusterHasNoLeader"],
    "replication-broken": ["ReplicationStopped", "StandbyNotRunning"],
    "replication-lagging": ["ReplicaLagging", "ReplicationLag"],
    "crash-looping": ["PodCrashLooping", "ServiceRestartingTooOften"],
    "everything-down": ["ShopOutage", "DatabaseDown", "SearchUnavailable"],
    "target-absent": ["JobAbsent", "NoHealthyBackends", "HeartbeatSeriesMissing"],
    "node-not-ready": ["NodeNotReady", "WorkerUnreachable"],
    "hardware-unhealthy": ["ChassisFanBroken", "RoomTemperatureHigh"],
    "probe-failing": ["BlackboxProbeUnsuccessful", "HealthCheckRed"],
    "down": ["SidecarStopped", "PrinterDown", "QueueManagerNotResponding"],
    "unhealthy": ["ComponentUnhealthy", "LeaderElectionsFrequent", "ArrayDegraded"],
    "rollout-stuck": ["RolloutIncomplete", "StatefulSetUpdateIncomplete"],
    "volume-trouble": ["PersistentVolumeErrors", "BucketGone"],
    "server-errors": ["Http5xxHigh", "CheckoutErrorBudgetBurn", "Http503Responses", "Backend5XX"],
    "client-errors": ["High4xxRate", "Http429Responses"],
    "error-rate": ["PaymentErrorsHigh", "UncaughtExceptions"],
    "job-failed": ["ReportJobFailed", "NightlyBuildFailed"],
    "operation-failing": ["MailSendingFailed", "UploadsRejected"],
    "out-of-memory": ["ContainerOOMKilled", "ProcessOutOfMemory"],
    "memory-high": ["HostMemoryHigh", "JVMHeapAlarm"],
    "cpu-saturated": ["HostCPUBusy", "LoadAverageHigh", "ContainerCPUThrottled"],
    "limits-reached": ["NamespaceQuotaExceeded", "HPAMaxedOut", "NamespaceOvercommitted"],
    "pool-exhausted": ["TooManyConnections", "FileDescriptorsLow", "ThreadsMany"],
    "queue-growing": ["QueueGrowing", "PodsPending", "ConsumerLag"],
    "usage-high": ["CardinalityHigh", "IngestionOverload"],
    "database-contention": ["Deadlocks", "LongRunningTransaction", "CacheHitRatioLow"],
    "taking-too-long": ["ImportStuck", "UpstreamTimeouts", "GarbagePause"],
    "delivery-failing": ["SpansDropped", "WebhookUndelivered"],
    "rate-unusual": ["TrafficlessRequests", "BookingsUnusual"],
}
SEVERITY_ONLY = {
    "named-critical": ("DoorCritical", Severity.CRITICAL),
    "named-warning": ("DoorWarning", Severity.WARNING),
    "named-info": ("DoorInfo", Severity.INFO),
}


def alert(name: str = "", **labels: str) -> Alert:
    return Alert({k: v for k, v in {"alertname": name, **labels}.items() if v})


def verdict(name: str = "", **labels: str) -> Classification:
    return SHIPPED.classify(alert(name, **labels))


@pytest.mark.parametrize(("rule", "name"), [(rule, name) for rule, names in EXAMPLES.items() for name in names])
def test_the_shipped_rules_catch_their_examples(rule, name):
    assert verdict(name).rule == rule


@pytest.mark.parametrize(("rule", "name", "severity"), [(r, *example) for r, example in SEVERITY_ONLY.items()])
def test_a_name_that_says_its_severity_is_believed(rule, name, severity):
    found = verdict(name)
    assert (found.rule, found.severity, found.category) == (rule, severity, Category.OTHER)


def test_every_shipped_rule_has_an_example():
    assert {rule.name for rule in SHIPPED.rules} == EXAMPLES.keys() | SEVERITY_ONLY.keys()


def test_every_shipped_rule_with_a_category_helps_people():
    assert [rule.name for rule in SHIPPED.rules if rule.category and not rule.recommendations] == []


@pytest.mark.parametrize(
    ("word", "severity"),
    [
        *[
            (word, Severity.CRITICAL)
            for word in ("critical", "CRIT", "page", "P1", "Sev-0", "SEV 1", "sev_1", "fatal ")
        ],
        *[
            (word, Severity.WARNING)
            for word in ("error", "High", "major", "warning", "WARN", "ticket", "p3", "average")
        ],
        *[(word, Severity.INFO) for word in ("info", "Informational", "notice", "low", "P5", "debug", "OK")],
        *[(word, Severity.NOISE) for word in ("none", "noise", "Ignore")],
        *[(word, None) for word in ("gold", "1", "criticality", "not critical", "-")],
    ],
)
def test_words_of_authors(word, severity):
    assert SHIPPED.author_severity(alert("X", severity=word)) == severity


@pytest.mark.parametrize(
    ("labels", "severity"),
    [
        pytest.param({"priority": "P1"}, Severity.CRITICAL, id="priority"),
        pytest.param({"level": "warn"}, Severity.WARNING, id="level"),
        pytest.param({"sev": "sev4"}, Severity.INFO, id="sev"),
        pytest.param({"urgency": "urgent"}, Severity.CRITICAL, id="urgency"),
        pytest.param({"Severity": "critical"}, Severity.CRITICAL, id="label names in any case"),
        pytest.param({"SEVERITY": "info", "severity": "page"}, Severity.CRITICAL, id="the usual spelling wins"),
        pytest.param({"priority": "p1", "severity": "info"}, Severity.INFO, id="severity before priority"),
        pytest.param({"severity": "gold", "priority": "p1"}, Severity.CRITICAL, id="an unknown word is passed over"),
        pytest.param({"team": "critical"}, None, id="other labels say nothing"),
        pytest.param({}, None, id="no labels"),
    ],
)
def test_where_authors_say_it(labels, severity):
    assert SHIPPED.author_severity(Alert(labels)) == severity


@pytest.mark.parametrize(
    ("found", "severity", "category", "confidence", "rule", "summary"),
    [
        pytest.param(
            verdict("LogDiskFull", severity="page"),
            Severity.CRITICAL,
            Category.STORAGE,
            Confidence.HIGH,
            "filesystem-full",
            "Severity critical is the author's; category storage by rule filesystem-full.",
            id="author and rule",
        ),
        pytest.param(
            verdict("LogDiskFull"),
            Severity.CRITICAL,
            Category.STORAGE,
            Confidence.MEDIUM,
            "filesystem-full",
            "No severity given: critical by rule filesystem-full; category storage by rule filesystem-full.",
            id="rule alone",
        ),
        pytest.param(
            verdict("ApiSlow", severity="gold"),
            Severity.WARNING,
            Category.PERFORMANCE,
            Confidence.MEDIUM,
            "latency-high",
            "Severity 'gold' is not known: warning by default; category performance by rule latency-high.",
            id="a rule without a severity",
        ),
        pytest.param(
            verdict("Kaputt", severity="info"),
            Severity.INFO,
            Category.OTHER,
            Confidence.MEDIUM,
            "default",
            "Severity info is the author's; no rule knows the category.",
            id="author alone",
        ),
        pytest.param(
            verdict("Kaputt"),
            Severity.WARNING,
            Category.OTHER,
            Confidence.LOW,
            "default",
            "No severity given: warning by default; no rule knows the category.",
            id="neither",
        ),
        pytest.param(
            verdict("DiskFullWarning"),
            Severity.WARNING,
            Category.STORAGE,
            Confidence.MEDIUM,
            "filesystem-full",
            "No severity given: warning by rule named-warning; category storage by rule filesystem-full.",
            id="the name's severity before the rule's",
        ),
        pytest.param(
            verdict("DoorCritical", severity="info"),
            Severity.INFO,
            Category.OTHER,
            Confidence.MEDIUM,
            "default",
            "Severity info is the author's; no rule knows the category.",
            id="a severity that does not count is no reason",
        ),
    ],
)
def test_verdicts_say_why(found, severity, category, confidence, rule, summary):
    assert (found.severity, found.category, found.confidence, found.rule) == (severity, category, confidence, rule)
    assert found.summary == summary
    assert (found.source, found.model) == (Source.RULES, "")


def test_the_longest_reason_is_not_cut():
    table = f"version: 1\nrules:\n- {{name: {'s' * 32}, pattern: x, severity: critical}}\n"
    table += f"- {{name: {'c' * 32}, pattern: x, category: configuration}}\n"
    rules = Rules.parse(table + "author_severity: {labels: [severity]}", "t")
    assert rules.classify(alert("x", severity="w" * 99)).summary.endswith("rule " + "c" * 32 + ".")


def test_an_alert_that_always_fires_is_noise_unless_its_author_says_otherwise():
    assert verdict("Watchdog").severity is Severity.NOISE
    assert verdict("Watchdog", severity="none").severity is Severity.NOISE
    assert verdict("Watchdog", severity="critical").severity is Severity.CRITICAL


def test_the_rules_recommendations_are_given():
    [rule] = [rule for rule in SHIPPED.rules if rule.name == "inodes-exhausted"]
    assert verdict("NodeInodesLow").recommendations == rule.recommendations


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("KubePersistentVolumeFillingUp", "kube persistent volume filling up"),
        ("HAProxyHTTP5xxErrors", "ha proxy http 5xx errors"),
        ("High4XXRate", "high 4xx rate"),
        ("PVCsFull", "pvcs full"),
        ("etcdGRPCSlow", "etcd grpc slow"),
        ("LatencyP99High", "latency p99 high"),
        ("Node_disk-full: 95%", "node disk full 95"),
        ("Host out of memory", "host out of memory"),
        ("etcd3Down", "etcd3 down"),
        ("CPU使用率", "cpu"),
        ("", ""),
    ],
)
def test_alertnames_are_read_as_words(name, expected):
    assert words(name) == expected


def test_only_the_beginning_of_an_endless_name_is_searched():
    assert verdict("A" * NAME_LENGTH + " disk full").rule == "default"


LABELS = st.dictionaries(
    st.sampled_from(["alertname", "severity", "Severity", "priority", "level", "job"]) | st.text(max_size=8),
    st.sampled_from(["critical", "P1", "warning", "info", "none", "Watchdog", "DiskFull", "NodeDown"])
    | st.text(max_size=40),
    max_size=6,
)


@given(LABELS)
def test_every_alert_gets_a_verdict(labels):
    found = SHIPPED.classify(Alert(labels))
    assert found.source is Source.RULES
    assert found.rule
    assert found.summary


@given(LABELS, st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3), st.booleans())
def test_the_verdict_depends_on_the_labels_alone(labels, annotations, later):
    moment = datetime(2031 if later else 2030, 1, 1, tzinfo=UTC)
    shuffled = dict(sorted(labels.items(), reverse=True))
    assert SHIPPED.classify(Alert(labels)) == AGAIN.classify(Alert(shuffled, annotations, moment, moment))


@given(LABELS, st.sampled_from(list(Severity)))
def test_the_author_is_neither_raised_nor_lowered(labels, severity):
    assert SHIPPED.classify(Alert({**labels, "severity": severity.value})).severity is severity


SMALL = """\
version: 1
author_severity:
  labels: [Tier]
  words:
    critical: [gold]
rules:
  - name: db-a
    match: ['job=~"db.*"', 'env!="test"']
    category: storage
    recommendations: [Call the owner.]
  - name: db-b
    match: ['job=~"db.*"']
    pattern: '\\bSLOW\\b'
    category: performance
    severity: info
"""


@pytest.mark.parametrize(
    ("labels", "rule", "severity"),
    [
        pytest.param({"job": "db1", "alertname": "DbSlow"}, "db-a", Severity.WARNING, id="the first that matches"),
        pytest.param({"job": "db1", "env": "test", "alertname": "DbSlow"}, "db-b", Severity.INFO, id="all must match"),
        pytest.param({"job": "db1", "env": "test", "alertname": "DbSlower"}, "default", Severity.WARNING, id="pattern"),
        pytest.param({"job": "web", "alertname": "WebSlow"}, "default", Severity.WARNING, id="matchers and pattern"),
        pytest.param({"job": "db1", "tier": "Gold"}, "db-a", Severity.CRITICAL, id="the table's own words"),
        pytest.param({"severity": "critical"}, "default", Severity.WARNING, id="not the shipped words"),
    ],
)
def test_a_table_decides(labels, rule, severity):
    found = Rules.parse(SMALL, "t").classify(Alert(labels))
    assert (found.rule, found.severity) == (rule, severity)


def test_equal_tables_have_equal_hashes():
    again = Rules.parse("# a comment\n" + SMALL.replace("  - name", "\n  - name"), "elsewhere.yaml")
    assert again.hash == Rules.parse(SMALL, "t").hash
    assert len(again.hash) == 12
    assert int(again.hash, 16) >= 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("gold", "silver"),
        ("Tier", "rank"),
        ("db-a", "db-c"),
        ('env!="test"', 'env="test"'),
        ("SLOW", "LATE"),
        ("severity: info", "severity: noise"),
        ("category: storage", "category: other"),
        ("Call the owner.", "Call her."),
    ],
)
def test_whatever_changes_a_verdict_changes_the_hash(old, new):
    assert old in SMALL
    assert Rules.parse(SMALL.replace(old, new), "t").hash != Rules.parse(SMALL, "t").hash


def test_the_order_changes_the_hash():
    head, a, b = SMALL.split("  - name")
    assert Rules.parse("  - name".join([head, b, a]), "t").hash != Rules.parse(SMALL, "t").hash


def test_a_change_of_the_code_changes_the_hash(monkeypatch):
    before = Rules.parse(SMALL, "t").hash
    monkeypatch.setattr("proxy.classification.rules.CODE_VERSION", 999)
    assert Rules.parse(SMALL, "t").hash != before


RULE = "version: 1\nrules:\n- name: a\n  pattern: x\n  category: other\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param("", ["t:1: empty, want version: 1 and rules:"], id="empty"),
        pytest.param("a: [", ["t:1: not YAML: expected the node content, but found '<stream end>'"], id="not YAML"),
        pytest.param("a: \x01", ["t:1: not YAML: a character or a nesting it does not allow"], id="control character"),
        pytest.param("[" * 2000, ["t:1: not YAML: a character or a nesting it does not allow"], id="endless nesting"),
        pytest.param("- a", ["t:1: want a mapping with version, author_severity, rules"], id="a list"),
        pytest.param("rules: []", ["t:1: version is missing, want version: 1"], id="no version"),
        pytest.param("version: 2", ["t:1: unknown version, want version: 1"], id="another version"),
        pytest.param("version: 1\nrule: []", ["t:2: unknown key rule; did you mean rules?"], id="misspelt key"),
        pytest.param(
            "version: 1\nxyz: 1", ["t:2: unknown key xyz; want one of version, author_severity, rules"], id="key"
        ),
        pytest.param("version: 1\nversion: 1", ["t:2: version is given twice; keep one"], id="key twice"),
        pytest.param("version: 1\nrules: x", ["t:2: want a list"], id="rules not a list"),
        pytest.param(
            "version: 1\nrules: [x]",
            ["t:2: want a mapping with name, match, pattern, severity, category, recommendations"],
            id="rule not a mapping",
        ),
        pytest.param(
            "version: 1\nrules:\n- {}",
            [
                "t:3: the rule has no name, want for example name: disk-filling",
                "t:3: the rule needs a category or a severity",
                "t:3: the rule needs match or pattern, or it would hold for every alert",
            ],
            id="empty rule",
        ),
        pytest.param(
            RULE.replace("name: a", "name: A b"),
            ["t:3: bad rule name 'A b', want a-z, 0-9 and hyphens, at most 32 characters"],
            id="bad name",
        ),
        pytest.param(
            RULE.replace("name: a", "name: " + "a" * 33),
            [f"t:3: bad rule name '{'a' * 33}', want a-z, 0-9 and hyphens, at most 32 characters"],
            id="long name",
        ),
        pytest.param(
            RULE.replace("name: a", "name: default"),
            ["t:3: default is what a verdict without a rule is called; give the rule another name"],
            id="reserved name",
        ),
        pytest.param(
            RULE + RULE.split("rules:\n")[1],
            ["t:6: a rule a stands in line 3 already; give this one its own name"],
            id="name twice",
        ),
        pytest.param(
            RULE.replace("name: a", "name: yes"),
            ["t:3: want a text; put yes in quotes if it is meant as one"],
            id="bool",
        ),
        pytest.param(RULE.replace("name: a", "name: [a]"), ["t:3: want a text"], id="list as text"),
        pytest.param(
            RULE.replace("name: a", "name: ''"),
            ["t:3: want a text; put it in quotes if it is meant as one"],
            id="blank",
        ),
        pytest.param(
            RULE.replace("pattern: x", "pattern: (x"),
            ["t:4: bad regular expression '(x': missing ): (x"],
            id="bad pattern",
        ),
        pytest.param(
            RULE.replace("pattern: x", "match:\n  - a=b\n  - 'a=~\"[\"'"),
            ["t:6: bad regular expression '[': missing ]: ["],
            id="bad matcher",
        ),
        pytest.param(
            RULE.replace("category: other", "category: disk\n  severity: page"),
            [
                f"t:5: unknown category 'disk', want one of {', '.join(Category)}",
                "t:6: unknown severity 'page', want one of critical, warning, info, noise",
            ],
            id="unknown category and severity",
        ),
        pytest.param(
            RULE + "  recommendations: [a, b, c, d]",
            ["t:6: 4 recommendations, at most 3 are shown"],
            id="many recommendations",
        ),
        pytest.param(
            RULE + f"  recommendations:\n  - {'x' * 121}",
            ["t:7: recommendation of 121 characters, want at most 120"],
            id="long recommendation",
        ),
        pytest.param(
            "version: 1\nauthor_severity:\n  words:\n    critical: [red]\n    info: [RED]\n    fine: []",
            [
                "t:5: RED means critical already; keep it in one of the two lists",
                "t:6: unknown key fine; want one of critical, warning, info, noise",
            ],
            id="a word twice",
        ),
    ],
)
def test_every_mistake_is_told_with_its_line(text, problems):
    with pytest.raises(ConfigError) as caught:
        Rules.parse(text, "t")
    assert list(caught.value.problems) == problems


def test_a_table_may_be_almost_empty():
    rules = Rules.parse("version: 1\nrules:\n", "t")
    assert rules.classify(alert("NodeDown", severity="critical")).severity is Severity.WARNING


def test_the_reference_names_every_word_of_an_author():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "labels-and-annotations.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+` )+)\| `(\w+)` \|$", page, re.MULTILINE)
    written = {word: severity for words, severity in rows for word in re.findall(r"\w+", words)}
    assert written == {word: severity.value for word, severity in SHIPPED._words.items()}
