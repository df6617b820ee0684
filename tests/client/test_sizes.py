"""The largest that each operation takes can be read back; what is larger is refused with a sentence."""

import threading

import pytest

from runtimed import InvalidCell, Session, SessionError
from runtimed.document.checks import MAX_KEY, MAX_SOURCE
from tests.client.faces import on_one_face

pytestmark = pytest.mark.slow

LARGEST = "#" + "x" * (MAX_SOURCE - 1)
WIDE = "\U0001f600" * (MAX_SOURCE // 4)
TOO_LARGE = LARGEST + "x"
HUGE = "x" * (20 * 2**20)
"""More than a message may have."""


@on_one_face
def test_a_source_of_the_largest_size_is_written_in_every_way_and_read_in_every_way(session):
    cell_id = session.create_cell(LARGEST)
    assert session.get_cell_source(cell_id) == LARGEST

    for source in (WIDE, LARGEST):
        session.set_source(cell_id, source)
        assert session.get_cell_source(cell_id) == source
    short = session.create_cell("#")
    session.append_source(short, LARGEST[1:])

    assert session.get_cell(short).source == LARGEST
    assert [cell.source for cell in session.get_cells()] == [LARGEST, LARGEST]
    assert session.get_cell_ids() == [cell_id, short]
    assert session.get_cell_type(short) == "code"
    assert session.get_cell_metadata(short) == {}


@pytest.mark.parametrize("source", [TOO_LARGE, HUGE], ids=["too large", "huge"])
def test_a_source_that_is_too_large_is_refused_with_a_sentence_in_every_way(session, source):
    cell_id = session.create_cell("#")
    for write, size in (
        (lambda: session.create_cell(source), len(source)),
        (lambda: session.set_source(cell_id, source), len(source)),
        (lambda: session.append_source(cell_id, source), len(source)),
        (lambda: session.set_cell_metadata(cell_id, "k", source), len(source) + len('""')),
    ):
        sentence = f"may have at most {MAX_SOURCE} bytes of UTF-8; this one has {size}"
        with pytest.raises(InvalidCell, match=sentence):
            write()
    with pytest.raises(InvalidCell, match="A cell's code may have at most"):
        session.run(source)
    with pytest.raises(SessionError, match="A metadata value may have at most"):
        session.set_metadata("k", source)
    assert [cell.source for cell in session.get_cells()] == ["#"]


def test_others_edits_of_a_long_source_are_merged_as_far_as_a_text_merges(session, face):
    lines = [f"line {n}\n" for n in range(1000)]
    cell_id = session.create_cell("".join(lines))
    other = face.session(session.notebook_id)
    other.connect()
    assert other.get_cell_source(cell_id) == "".join(lines)

    session.set_source(cell_id, "".join(["first\n", *lines]))
    other.set_source(cell_id, "".join([*lines, "last\n"]))

    assert session.get_cell_source(cell_id) == "".join(["first\n", *lines, "last\n"])
    other.close()


@on_one_face
def test_cells_with_much_metadata_are_written_and_read(session):
    value = "v" * 2**20
    ids = [session.create_cell(f"cell {n}") for n in range(20)]
    for cell_id in ids:
        session.set_cell_metadata(cell_id, "k", value)

    assert session.get_cell_ids() == ids
    assert [(cell.source, cell.metadata) for cell in session.get_cells()] == [
        (f"cell {n}", {"k": value}) for n in range(20)
    ]
    assert session.get_cell_metadata(ids[3]) == {"k": value}


@on_one_face
def test_a_cell_s_metadata_are_bounded_together_and_up_to_there_readable(session):
    cell_id = session.create_cell("x")
    part = "m" * 2**20
    expected = {f"{n:0{MAX_KEY}}": part for n in range(9)}
    for key, value in expected.items():
        session.set_cell_metadata(cell_id, key, value)

    with pytest.raises(InvalidCell, match="A cell's metadata may have at most 10485760 bytes of UTF-8 in total"):
        session.set_cell_metadata(cell_id, "more", part)

    assert session.get_cell(cell_id).metadata == expected
    assert session.get_cell_metadata(cell_id) == expected
    # What is there gives way.
    del expected[first := next(iter(expected))]
    session.delete_cell_metadata(cell_id, first)
    session.set_cell_metadata(cell_id, "more", part)
    assert session.get_cell(cell_id).metadata == {**expected, "more": part}


@on_one_face
def test_the_largest_metadata_of_a_document_are_read_back(session):
    key, value = "k" * MAX_KEY, LARGEST
    session.set_metadata(key, value)
    assert session.get_metadata(key) == value

    packages = [f"package-{n}>=1" for n in range(5000)]
    session.add_uv_dependencies(packages)
    assert session.get_uv_dependencies() == packages
    session.set_kernelspec("n" * 10_000, "d" * 2**20, "l")
    assert session.get_kernelspec() == {"name": "n" * 10_000, "display_name": "d" * 2**20, "language": "l"}


@on_one_face
def test_who_reads_a_large_cell_while_it_is_edited_gets_one_or_the_other(session):
    texts = [letter * (4 * 2**20) for letter in "ab"]
    cell_id = session.create_cell(texts[0])
    done = threading.Event()

    def edit() -> None:
        with Session(session.notebook_id) as other:
            n = 0
            while not done.wait(0.05):
                n += 1
                other.set_source(cell_id, texts[n % 2])

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        for _ in range(4):
            assert session.get_cell_source(cell_id) in texts
    finally:
        done.set()
        editor.join()


@on_one_face
def test_the_largest_source_runs(with_kernel):
    head, tail = "print(len('", "'))"
    size = MAX_SOURCE - len(head + tail)
    result = with_kernel.run(head + "x" * size + tail, timeout_secs=100)

    assert result.stdout == f"{size}\n"
    assert with_kernel.get_cell(result.cell_id).source == head + "x" * size + tail


@on_one_face
def test_what_a_kernel_says_of_an_object_is_cut_to_what_fits(with_kernel):
    assert with_kernel.run("def f(): pass\nf.__doc__ = 'y' * (20 * 2**20)").success

    said = with_kernel.inspect("f")

    assert said["found"]
    assert said["status"] == "ok"
    assert "characters left out)" in said["data"]["text/plain"]
    assert len(said["data"]["text/plain"]) < 2**20
