"""Settings: sizes."""

import pytest

from proxy.config.sizes import SizeKind

KIND = SizeKind("64KiB", "1GiB")


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("64KiB", 65536, "64KiB"),
        ("1536 KiB", 1536 << 10, "1536KiB"),
        ("1024KiB", 1 << 20, "1MiB"),
        ("96MiB", 96 << 20, "96MiB"),
        ("1GiB", 1 << 30, "1GiB"),
        ("1024MiB", 1 << 30, "1GiB"),
    ],
)
def test_a_size_is_read_and_shown(text, size, shown):
    assert KIND.parse(text) == size
    assert KIND.show(size) == shown
    assert KIND.parse(shown) == size


@pytest.mark.parametrize("text", ["", "64", "64MB", "64M", "-1MiB", "1.5MiB", "1MiB1KiB", "64mib", "KiB", "\u0661MiB"])
def test_what_is_no_size_is_refused_with_one_that_is(text):
    with pytest.raises(ValueError, match="want for example 64MiB"):
        KIND.parse(text)


@pytest.mark.parametrize("text", ["63KiB", "1025MiB", "0GiB"])
def test_a_size_has_its_bounds(text):
    with pytest.raises(ValueError, match=f"{text} is out of range, want 64KiB to 1GiB"):
        KIND.parse(text)
