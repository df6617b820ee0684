"""Sizes as people write and read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.errors import RuntimedError
from runtimed.settings import format_size, parse_size, read_settings


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("536870912", 2**29),
        ("512M", 2**29),
        ("512m", 2**29),
        ("512 MB", 2**29),
        ("512MiB", 2**29),
        (" 4G ", 4 * 2**30),
        ("1.5G", 3 * 2**29),
        ("64k", 2**16),
        ("1T", 2**40),
        ("100B", 100),
    ],
)
def test_a_size_is_a_number_with_or_without_a_unit(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "0", "0.2", "1e9", "4 GG", "4iB", "4X", "1,5G", "٤G", "9" * 400, "nan"]
)
def test_what_is_no_size_is_refused_with_an_example(text: str):
    with pytest.raises(ValueError, match=r"^a number of bytes such as 536870912, 512M or 1.5G$"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(1, "1 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 * 2**29, "1.5 GiB"), (2**60, "1048576.0 TiB")],
)
def test_a_size_is_told_in_its_largest_unit(size: int, text: str):
    assert format_size(size) == text


@given(st.integers(min_value=1, max_value=2**49))
def test_what_is_told_can_be_read_again(size: int):
    assert parse_size(format_size(size).replace(" bytes", "")) == pytest.approx(size, rel=0.06)


def test_kernels_have_no_limit_unless_one_is_set():
    assert read_settings({}).max_kernel_memory is None
    assert read_settings({"RUNTIMED_MAX_KERNEL_MEMORY": ""}).max_kernel_memory is None
    assert read_settings({"RUNTIMED_MAX_KERNEL_MEMORY": "2G"}).max_kernel_memory == 2**31


def test_a_limit_that_is_no_size_is_named_with_its_variable():
    with pytest.raises(RuntimedError) as caught:
        read_settings({"RUNTIMED_MAX_KERNEL_MEMORY": "lots"})
    assert str(caught.value) == (
        "RUNTIMED_MAX_KERNEL_MEMORY is 'lots'; it must be a number of bytes such as 536870912, 512M or 1.5G"
    )
    assert caught.value.data == {"variable": "RUNTIMED_MAX_KERNEL_MEMORY", "value": "lots"}
