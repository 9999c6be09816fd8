"""Job files: what is read, and what is kept when it cannot be."""

from watcher.core.model import JobKey, check_job_id
from watcher.polling.sources import LARGEST_FILE, Configured, JobFiles


def files(*patterns):
    return JobFiles("prod", [str(pattern) for pattern in patterns], check_job_id)


def keys(*names):
    return {JobKey("prod", name) for name in names}


async def test_configured():
    assert (await Configured("prod", ["a", "b", "a"]).read()).keys == keys("a", "b")


async def test_ids_comments_and_blank_lines(tmp_path):
    (tmp_path / "one.txt").write_text("# ids\na\n\n  b  # second\n#c\n")
    (tmp_path / "two.txt").write_text("b\nd")
    (tmp_path / "not.ids").write_text("e")
    reading = await files(tmp_path / "*.txt").read()
    assert reading.keys == keys("a", "b", "d")
    assert reading.problems == ()


async def test_a_bad_line_keeps_that_files_earlier_ids(tmp_path):
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("a\n")
    bad.write_text("b\n")
    source = files(tmp_path / "*.txt")
    await source.read()
    good.write_text("c\n")
    bad.write_text("b2\nnot an id\n")
    for _ in range(2):
        reading = await source.read()
        assert reading.keys == keys("c", "b")
        (problem,) = reading.problems
        assert problem.startswith(f"{bad}:2: 'not an id' is not a job id")
    bad.write_text("b2\n")
    assert await source.read() == await files(tmp_path / "*.txt").read()


async def test_a_file_that_never_was_good_gives_nothing(tmp_path):
    (tmp_path / "bad.txt").write_text("templates\n")
    reading = await files(tmp_path / "bad.txt").read()
    assert reading.keys == frozenset()
    assert len(reading.problems) == 1


async def test_a_file_that_is_gone_takes_its_ids_along(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("a\n")
    source = files(file)
    await source.read()
    file.unlink()
    assert await source.read() == await files(tmp_path / "none").read()
    assert (await source.read()).keys == frozenset()


async def test_what_is_no_text_file(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(LARGEST_FILE + 1)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    reading = await files(tmp_path / "*").read()
    assert reading.keys == frozenset()
    assert reading.problems == (
        f"{tmp_path}/binary: not UTF-8 text",
        f"{tmp_path}/folder: Is a directory",
        f"{tmp_path}/huge: larger than 8 MiB",
    )
