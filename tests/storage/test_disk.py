from pathlib import Path

from runtimed.storage.disk import check_room, has_room, is_no_room, no_room


def test_a_path_that_does_not_exist_yet_is_on_the_disk_of_its_nearest_folder(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "yet"

    check_room(path)

    assert has_room(path)
    error = no_room(path, "so it was said")
    assert error.path == str(path)
    assert error.free is not None
    assert error.message.startswith(f"{path}: the disk is full; free some space and try again, ")
    assert "(so it was said)" in error.message


def test_a_disk_of_which_nobody_can_tell_counts_as_having_room() -> None:
    path = Path("/" + "x" * 300)

    check_room(path)

    assert no_room(path).free is None


def test_only_what_more_room_would_mend_is_want_of_room() -> None:
    assert is_no_room(OSError(28, "No space left on device"))
    assert not is_no_room(OSError(5, "Input/output error"))
    assert not is_no_room(ValueError(28))
