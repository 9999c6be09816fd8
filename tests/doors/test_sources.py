"""Job files: what is read, what is refused, and what is kept when it cannot be read."""

import os
import socket
import stat
import tracemalloc
from threading import Thread

import pytest

from watcher.core.model import JobKey
from watcher.polling import folder, sources
from watcher.polling.folder import LARGEST_FILE
from watcher.polling.sources import Configured, JobFiles, JobSources

KEY = "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc"
needs_rights = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def files(*patterns, **options):
    return JobFiles("prod", [str(pattern) for pattern in patterns], **options)


def keys(*names):
    return {JobKey("prod", name) for name in names}


def ids(source):
    return {key.job_id for key in source.look().keys}


def write(file, text):
    """Write a file, later than the last time as the file system sees it."""
    before = file.stat().st_ctime_ns if file.exists() else None
    file.write_text(text)
    while file.stat().st_ctime_ns == before:
        file.touch()


def problems(source):
    return source.look().problems


@pytest.fixture
def closed(monkeypatch):
    """Lets nobody look into some folders; what root is not kept from by itself."""
    shut = set()
    real = os.scandir

    def scandir(place):
        if place in shut:
            raise PermissionError(13, "Permission denied")
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    return shut


async def test_configured():
    reading = await Configured("prod", ["b", "a", "b"]).read()
    assert reading.keys == [JobKey("prod", "b"), JobKey("prod", "a")]


async def test_ids_comments_and_blank_lines(tmp_path):
    write(tmp_path / "one.txt", "\ufeff# ids\na\n\n  b  # second\n#c\n")
    write(tmp_path / "two.txt", "b\nd")
    write(tmp_path / "not.ids", "e")
    write(tmp_path / ".hidden.txt", "f")
    reading = await files(tmp_path / "*.txt").read()
    assert set(reading.keys) == keys("a", "b", "d")
    assert reading.problems == ()


class TestBadLines:
    def test_the_good_lines_of_a_new_file_are_watched(self, tmp_path):
        write(tmp_path / "new.txt", "a\nnot an id\nb\ntemplates\n")
        source = files(tmp_path / "*.txt")
        assert ids(source) == {"a", "b"}
        (problem,) = problems(source)
        assert problem == f"{tmp_path}/new.txt:2: not a job id (and 1 more lines)"

    def test_no_id_goes_while_a_line_is_bad(self, tmp_path):
        good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
        write(good, "a\n")
        write(bad, "b\n")
        source = files(tmp_path / "*.txt")
        source.look()
        write(good, "c\n")
        write(bad, "b2\nnot an id\n")
        for _ in range(3):
            reading = source.look()
            assert reading.problems == (f"{bad}:2: not a job id",)
        assert set(reading.keys) == keys("b", "b2", "c")
        write(bad, "b2\n")
        source.look()
        assert ids(source) == {"b2", "c"}
        assert problems(source) == ()

    @pytest.mark.parametrize(
        "line", [f"{KEY} sk", f"sk={KEY}", KEY], ids=["spaced", "named", "bare"]
    )
    def test_no_line_is_quoted(self, tmp_path, line):
        write(tmp_path / "one.txt", f"{line}\n")
        source = files(tmp_path / "*.txt", secrets={KEY})
        reading = source.look()
        assert set(reading.keys) == frozenset()
        assert len(reading.problems) == 1
        assert KEY[:8] not in str(reading)

    def test_an_id_that_is_a_secret_is_refused_from_the_reload_on(self, tmp_path):
        file = tmp_path / "one.txt"
        write(file, f"a\n{KEY}\n")
        source = files(file)
        assert ids(source) == {"a", KEY}
        source.follow([str(file)], {KEY})
        (problem,) = problems(source)
        assert problem.startswith(f"{file}:2: a secret of the configuration")


class TestTwoLooks:
    def test_a_file_that_is_gone_takes_its_ids_along(self, tmp_path):
        file = tmp_path / "one.txt"
        write(file, "a\n")
        source = files(file)
        source.look()
        file.unlink()
        assert ids(source) == {"a"}
        assert ids(source) == set()
        write(file, "b\n")
        assert ids(source) == {"b"}

    def test_a_file_that_is_replaced_by_removal_and_writing(self, tmp_path):
        file = tmp_path / "one.txt"
        write(file, "a\nb\n")
        source = files(file)
        source.look()
        file.unlink()
        assert ids(source) == {"a", "b"}
        write(file, "a\n")
        assert ids(source) == {"a", "b"}
        assert ids(source) == {"a"}

    def test_a_half_written_file_neither_cuts_nor_drops_ids(self, tmp_path):
        file = tmp_path / "one.txt"
        write(file, "aaaa\nbbbb\n")
        source = files(file)
        source.look()
        write(file, "aaaa\ncc")  # of aaaa, cccc, bbbb
        assert ids(source) == {"aaaa", "bbbb"}
        write(file, "aaaa\ncccc\nbb")
        assert ids(source) == {"aaaa", "bbbb", "cccc"}
        write(file, "aaaa\ncccc\nbbbb\n")
        for _ in range(3):
            assert ids(source) == {"aaaa", "bbbb", "cccc"}

    def test_a_last_line_without_an_end_counts_when_seen_twice(self, tmp_path):
        file = tmp_path / "one.txt"
        write(file, "a\nb")
        clock = [file.stat().st_mtime + 1]
        source = files(file, now=lambda: clock[0])
        assert ids(source) == {"a"}
        assert ids(source) == {"a", "b"}

    def test_a_file_that_rests_is_whole_at_the_first_look(self, tmp_path):
        file = tmp_path / "one.txt"
        write(file, "a\nb")
        later = file.stat().st_mtime + sources.AT_REST + 1
        assert ids(files(file, now=lambda: later)) == {"a", "b"}

    def test_what_did_not_change_is_not_read_again(self, tmp_path, monkeypatch):
        file = tmp_path / "one.txt"
        write(file, "a\nx y\n")
        source = files(file)
        source.look()
        monkeypatch.setattr(folder, "read_whole", None)
        assert set(source.look().keys) == keys("a")
        assert len(problems(source)) == 1


class TestReloads:
    def test_a_pattern_that_is_added_costs_a_broken_file_nothing(self, tmp_path):
        old, new = tmp_path / "old.txt", tmp_path / "new.ids"
        write(old, "a\n")
        write(new, "b\n")
        source = files(tmp_path / "*.txt")
        source.look()
        old.write_bytes(b"\xff")
        source.follow([f"{tmp_path}/*.ids", f"{tmp_path}/*.txt"], ())
        assert ids(source) == {"a", "b"}

    async def test_the_sources_of_the_settings_keep_what_was_read(self, tmp_path):
        file = tmp_path / "old.txt"
        write(file, "a\n")
        made = JobSources(lambda: 0.0)
        for ids, patterns in [(("b",), (str(file),)), ((), (f"{tmp_path}/*",))]:
            configured, read = made.of({"prod": (ids, patterns)}, ())
            assert set((await configured.read()).keys) == keys(*ids)
            assert set((await read.read()).keys) == keys("a")
            file.write_bytes(b"\xff")
        (configured,) = made.of({"prod": ((), ())}, ())

    def test_one_that_comes_during_a_look_waits_for_the_next(
        self, tmp_path, monkeypatch
    ):
        for name in "ab":
            write(tmp_path / name, f"{name}\n")
        source = files(tmp_path / "*")
        real = folder.read_whole

        def read_whole(file):
            source.follow([str(tmp_path / "b")], ())
            return real(file)

        monkeypatch.setattr(folder, "read_whole", read_whole)
        assert ids(source) == {"a", "b"}
        assert ids(source) == {"b"}

    def test_a_pattern_that_is_removed_takes_its_ids_along(self, tmp_path):
        write(tmp_path / "old.txt", "a\n")
        source = files(tmp_path / "*.txt")
        source.look()
        source.follow([f"{tmp_path}/*.ids"], ())
        assert ids(source) == set()


class TestFolders:
    def test_one_that_cannot_be_read_is_not_an_empty_one(self, tmp_path, closed):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            write(tmp_path / name / "a.txt", f"{name}\n")
        source = files(tmp_path / "*" / "*.txt")
        source.look()
        closed.add(tmp_path / "one")
        write(tmp_path / "two" / "a.txt", "zwei\n")
        for _ in range(3):
            reading = source.look()
        assert set(reading.keys) == keys("one", "zwei")
        assert reading.problems == (f"{tmp_path}/one: Permission denied",)
        closed.clear()
        assert source.look() == files(tmp_path / "*" / "*.txt").look()

    @needs_rights
    def test_one_that_is_really_closed(self, tmp_path):
        shut = tmp_path / "shut"
        shut.mkdir()
        write(shut / "a.txt", "a\n")
        source = files(shut / "*.txt", shut / "a.txt")
        source.look()
        shut.chmod(0)
        for _ in range(3):
            reading = source.look()
        shut.chmod(stat.S_IRWXU)
        assert set(reading.keys) == keys("a")
        assert reading.problems == (f"{shut}: Permission denied",)

    def test_one_that_is_gone_takes_its_ids_along(self, tmp_path):
        (tmp_path / "jobs").mkdir()
        file = tmp_path / "jobs" / "a.txt"
        write(file, "a\n")
        source = files(tmp_path / "jobs" / "*.txt")
        source.look()
        file.unlink()
        file.parent.rmdir()
        assert [ids(source), ids(source), problems(source)] == [{"a"}, set(), ()]


class TestWhoeverMayWriteThere:
    @pytest.fixture
    def jobs(self, tmp_path):
        (tmp_path / "jobs").mkdir()
        write(tmp_path / "secret", f"{KEY}\n")
        return tmp_path / "jobs"

    def refused(self, jobs, why, pattern="*"):
        reading = files(jobs / pattern).look()
        assert set(reading.keys) == frozenset()
        (problem,) = reading.problems
        assert why in problem
        assert KEY not in problem

    def test_cannot_have_a_file_elsewhere_read(self, jobs):
        (jobs / "x.txt").symlink_to("../secret")
        self.refused(jobs, "leads out of")

    def test_not_by_a_linked_folder_either(self, jobs):
        (jobs / "x").symlink_to("..")
        self.refused(jobs, "leads out of", "*/secret")

    def test_not_by_a_link_put_there_after_the_look(self, jobs, monkeypatch):
        write(jobs / "x.txt", "a\n")
        real = os.path.realpath

        def late(path, **options):
            found = real(path, **options)
            if str(path).endswith("x.txt"):
                (jobs / "x.txt").unlink()
                (jobs / "x.txt").symlink_to("../secret")
            return found

        monkeypatch.setattr(os.path, "realpath", late)
        self.refused(jobs, "symbolic links")

    def test_nor_by_a_folder_put_there_after_the_look(self, jobs, monkeypatch):
        (jobs / "in").mkdir()
        write(jobs / "in" / "secret", "a\n")
        real = os.path.realpath

        def late(path, **options):
            found = real(path, **options)
            if str(path).endswith("secret"):
                (jobs / "in").rename(jobs / "out")
                (jobs / "in").symlink_to("..")
            return found

        monkeypatch.setattr(os.path, "realpath", late)
        self.refused(jobs, "Not a directory", "*/secret")

    def test_config_maps_work(self, jobs):
        for version, text in (("..1", "a\n"), ("..2", "b\n")):
            (jobs / version).mkdir()
            write(jobs / version / "jobs.txt", text)
        (jobs / "..data").symlink_to("..1")
        (jobs / "jobs.txt").symlink_to("..data/jobs.txt")
        source = files(jobs / "*.txt")
        assert ids(source) == {"a"}
        (jobs / "..new").symlink_to("..2")
        (jobs / "..new").rename(jobs / "..data")
        source.look()
        assert ids(source) == {"b"}

    def test_the_folder_itself_may_be_a_link(self, jobs):
        write(jobs / "a.txt", "a\n")
        (jobs.parent / "linked").symlink_to(jobs)
        assert ids(files(jobs.parent / "linked" / "a.txt")) == {"a"}

    def test_a_pipe_holds_nothing_up(self, jobs):
        os.mkfifo(jobs / "x.txt")
        found = []
        look = Thread(target=lambda: found.extend(problems(files(jobs / "*"))))
        look.daemon = True
        look.start()
        look.join(5)
        assert found == [f"{jobs}/x.txt: is not a file"]

    def test_a_socket(self, jobs, monkeypatch):
        monkeypatch.chdir(jobs)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("x.txt")
            self.refused(jobs, "x.txt: No such device or address")

    def test_a_device(self):
        assert problems(files("/dev/zero")) == ("/dev/zero: is not a file",)

    def test_what_is_no_text_file(self, tmp_path):
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        (tmp_path / "folder").mkdir()
        with (tmp_path / "huge").open("wb") as huge:
            huge.truncate(LARGEST_FILE + 1)
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        (tmp_path / "itself").symlink_to(tmp_path)
        (tmp_path / "loop").symlink_to("loop")
        reading = files(tmp_path / "*").look()
        assert set(reading.keys) == frozenset()
        assert reading.problems == (
            f"{tmp_path}/binary: is not UTF-8 text",
            f"{tmp_path}/folder: is not a file",
            f"{tmp_path}/huge: is larger than 8 MiB",
            f"{tmp_path}/itself: is not a file",
            f"{tmp_path}/loop: Too many levels of symbolic links",
        )

    def test_more_files_than_are_read(self, jobs, monkeypatch):
        monkeypatch.setattr(sources, "MOST_FILES", 2)
        write(jobs / "z.txt", "z\n")
        source = files(jobs / "*")
        source.look()
        for name in "abc":
            write(jobs / f"{name}.txt", f"{name}\n")
        assert ids(source) == {"a", "z"}
        assert problems(source) == ("more than 2 files match: some are not read",)

    def test_more_ids_than_are_taken(self, jobs, monkeypatch):
        monkeypatch.setattr(sources, "MOST_IDS", 2)
        write(jobs / "z.txt", "z\n")
        source = files(jobs / "*")
        source.look()
        write(jobs / "a.txt", "a\nb\n")
        for _ in range(2):
            (problem,) = problems(source)
            assert "more than 2 ids" in problem
            assert ids(source) == {"z"}

    def test_more_names_than_are_looked_at(self, jobs, monkeypatch):
        monkeypatch.setattr(folder, "MOST_NAMES", 2)
        write(jobs / "z.txt", "z\n")
        source = files(jobs / "*")
        source.look()
        for name in "ab":
            write(jobs / f"{name}.txt", f"{name}\n")
        for _ in range(3):
            assert problems(source) == (f"{jobs}: more than 2 names to look at",)
            assert ids(source) == {"z"}

    def test_more_text_than_is_read_at_once(self, jobs, monkeypatch):
        monkeypatch.setattr(sources, "LARGEST_FILE", 4)
        for name in "ab":
            write(jobs / f"{name}.txt", f"{name}{name}\n")
        source = files(jobs / "*")
        assert ids(source) == {"aa"}
        assert ids(source) == {"aa", "bb"}

    def test_many_short_lines_need_little_memory(self, jobs):
        write(jobs / "x.txt", "ab\n" * 300_000)
        tracemalloc.start()
        try:
            assert ids(files(jobs / "*")) == {"ab"}
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 16 * 900_000

    def test_what_is_no_file_of_ids_is_left_alone(self, jobs, monkeypatch):
        monkeypatch.setattr(sources, "MOST_BAD", 2)
        write(jobs / "x.txt", "a b\n" * 3 + "c\n")
        self.refused(jobs, "2 bad lines")

    def test_what_is_written_at_the_same_time_in_the_same_size(self, jobs):
        file = jobs / "x.txt"
        write(file, "a\n")
        source = files(file)
        source.look()
        before = file.stat()
        write(file, "b\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert file.stat().st_ctime_ns != before.st_ctime_ns
        source.look()
        assert ids(source) == {"b"}

    def test_a_name_that_would_steer_a_terminal(self, jobs):
        (jobs / "\x1b[2J\n.txt").mkdir()
        (jobs / os.fsdecode(b"\xff.txt")).mkdir()
        found = problems(files(jobs / "*"))
        assert len(found) == 2
        assert all(problem.isprintable() for problem in found)
