"""`holdfast cache`: limits that change, pins, what is listed, and what is removed, of real mounts."""

import json
import os
import shutil
import signal
import subprocess
import time

import _path  # noqa: F401
from harness import images
from harness.case import Case, main
from harness.disk import Disk, fill_up
from harness.holdfast import NO_READ_AHEAD
from harness.other_user import as_nobody
from harness.readers import pread_all
from harness.sandbox import wait_gone, wait_until

MB = 1 << 20
SIZE = 8 * MB
COUNT = 8


def run_captured(arguments):
    return subprocess.run(arguments, capture_output=True, text=True)


class CacheVerbsTest(Case):
    def setUp(self):
        super().setUp()
        self.root = self.box.make_directory("root")
        for number in range(COUNT):
            images.write_random(self.truth(number), SIZE, 500 + number)
        self.origin = self.serve(self.root)
        self.instance = self.holdfast()

    def truth(self, number):
        return os.path.join(self.root, f"image{number}")

    def url(self, number):
        return self.origin.url(f"image{number}")

    def mount(self, number, *flags, instance=None):
        """The path of the mounted file."""
        return (instance or self.instance).mount_file(self.url(number), *flags)

    def read(self, path, number):
        """Right, and from the cache."""
        with open(path, "rb", buffering=0) as f, open(self.truth(number), "rb", buffering=0) as right:
            os.posix_fadvise(f.fileno(), 0, SIZE, os.POSIX_FADV_DONTNEED)
            self.assertTrue(pread_all(f.fileno(), 0, SIZE) == pread_all(right.fileno(), 0, SIZE), path)

    def cache(self, *arguments, instance=None):
        instance = instance or self.instance
        return instance.run("cache", *arguments[:1], *instance.root_flags(), "--instance", instance.name, *arguments[1:])

    def done(self, *arguments, instance=None):
        done = self.cache(*arguments, instance=instance)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def refused(self, *arguments):
        """What it says."""
        done = self.cache(*arguments)
        self.assertEqual(done.returncode, 1, f"{arguments}: {done.stdout}{done.stderr}")
        return done.stderr

    def rows(self, instance=None):
        """By the image's name."""
        listed = json.loads(self.done("ls", "--json", instance=instance))
        self.assertEqual(listed["total"]["objects"], len(listed["objects"]))
        return {row["object"]: row for row in listed["objects"]}

    def limits(self, *options):
        return json.loads(self.done("limit", "--json", *options))

    def allocated(self):
        return self.limits()["allocated"]

    def sources(self):
        return set(os.listdir(self.instance.state_path("sources")))

    def kill_daemon(self):
        before = self.instance.daemon_pid()
        os.kill(before, signal.SIGKILL)
        self.assertTrue(wait_gone(before, 30))
        self.wait_daemon(before)

    def wait_daemon(self, other_than):
        def pid():
            try:
                now = self.instance.daemon_pid()
                return now if now != other_than and self.instance.status()["pid"] == now else None
            except (OSError, ValueError):
                return None
        return wait_until(pid, 30, "the next daemon")

    # Limits.
    def test_a_limit_counts_from_the_moment_it_is_chosen(self):
        paths = [self.mount(number) for number in range(COUNT)]
        for number, path in enumerate(paths):
            self.read(path, number)
        self.assertGreaterEqual(self.allocated(), COUNT * SIZE)
        self.read(paths[0], 0)  # Before there was a limit: its use counts all the same.
        limits = self.limits("--max", "32M")
        self.assertEqual((limits["max"], limits["max_source"]), (str(32 * MB), "limit"))
        wait_until(lambda: self.allocated() <= 32 * MB, 30, "the limit is kept")
        self.assertGreaterEqual(self.rows()["image0"]["present"], SIZE)
        for number, path in enumerate(paths):
            self.read(path, number)
        text = self.done("limit")
        self.assertIn("32.0 MiB, set by holdfast cache limit", text)

    def test_a_limit_outlives_the_daemon_and_the_instance(self):
        self.mount(0, "--cache-max=48M")
        self.assertEqual(self.limits()["max_source"], "flag")
        self.limits("--max=24M", "--min-free=1M")
        self.kill_daemon()
        self.assertEqual(self.limits()["max"], str(24 * MB))
        for point in self.instance_points():
            self.instance.umount(point)
        self.instance.stop()
        self.mount(0, "--cache-max=48M")
        limits = self.limits()
        self.assertEqual((limits["max"], limits["min_free"]), (str(24 * MB), str(MB)))
        limits = self.limits("--max=default", "--min-free=none")
        self.assertEqual((limits["max"], limits["max_source"]), (str(48 * MB), "flag"))
        self.assertEqual((limits["min_free"], limits["min_free_source"]), ("none", "limit"))

    def instance_points(self):
        return [point for row in self.rows().values() for point in row["mounts"]]

    def test_values_that_are_no_limit_are_wrong_usage(self):
        self.mount(0)
        for option in ("--max", "--min-free"):
            for value in ("much", "0%", "101%"):
                done = self.cache("limit", f"{option}={value}")
                self.assertEqual(done.returncode, 2)
                self.assertIn(option, done.stderr)

    def test_two_instances_on_one_file_system_each_leave_what_was_chosen(self):
        disk = Disk(self.box, "d", 160 * MB)
        other = self.holdfast("other")
        paths = []
        for number in range(COUNT):
            paths.append((number, self.mount(number, "--cache-dir", os.path.join(disk.path, "a"))))
            paths.append((number, self.mount(number, "--cache-dir", os.path.join(disk.path, "b"), instance=other)))
        for number, path in paths:
            self.read(path, number)
        for instance in (self.instance, other):
            self.done("limit", "--min-free=80M", instance=instance)

        def free():
            info = os.statvfs(disk.path)
            return info.f_bavail * info.f_frsize
        wait_until(lambda: free() >= 80 * MB, 30, "the room is free")
        for number, path in paths:
            self.read(path, number)

    # Pins.
    def test_a_pinned_object_is_not_culled_and_a_limit_that_it_prevents_is_said_once(self):
        paths = [self.mount(number) for number in range(4)]
        for number, path in enumerate(paths):
            self.read(path, number)
        self.done("pin", self.url(0), os.path.dirname(paths[1]))
        self.kill_daemon()
        self.assertEqual({name for name, row in self.rows().items() if row["pinned"]}, {"image0", "image1"})
        self.limits("--max", "4M")
        wait_until(lambda: self.limits()["trouble"], 30, "the limit cannot be kept")
        wait_until(lambda: self.allocated() <= 2 * SIZE + MB, 30, "all but the pinned is culled")
        self.assertIn("are pinned", self.limits()["trouble"])
        rows = self.rows()
        self.assertEqual([rows[f"image{number}"]["present"] for number in range(4)], [SIZE, SIZE, 0, 0])
        said = self.instance.log_text().count("are pinned")
        self.assertEqual(said, 1)
        status = self.instance.status()
        self.assertIn("are pinned", status["cache"]["trouble"])
        self.assertTrue(next(row["pinned"] for row in status["objects"] if row["name"] == "image0"))
        shown = self.instance.run("status", *self.instance.root_flags()).stdout
        self.assertIn("pinned", shown)
        for name in ("nosuch/x", "/mnt/nosuch", "https://nosuch/x"):
            for verb in ("pin", "unpin"):
                self.assertIn(f"{name}: neither a mount point, a URL nor an object", self.refused(verb, name))
        self.done("unpin", self.url(0) + "?signature=x")
        self.assertFalse(self.rows()["image0"]["pinned"])
        self.done("unpin", rows["image0"]["name"], rows["image1"]["name"])
        wait_until(lambda: self.allocated() <= 4 * MB, 30, "the limit is kept")
        wait_until(lambda: not self.limits()["trouble"], 30, "the trouble is over")

    # Lists.
    def test_a_list_has_each_object_also_of_a_stopped_instance(self):
        first = self.mount(0)
        self.read(first, 0)
        second = self.mount(1)
        with open(second, "rb") as f:
            f.read(1)
        self.done("pin", second.rsplit("/", 1)[0])
        rows = self.rows()
        self.assertEqual(set(rows), {"image0", "image1"})
        row = rows["image0"]
        self.assertEqual((row["url"], row["size"], row["present"]), (self.url(0), SIZE, SIZE))
        self.assertGreaterEqual(row["allocated"], SIZE)
        self.assertEqual(row["mounts"], [os.path.dirname(first)])
        self.assertLess(abs(row["used"] - time.time()), 60)
        text = self.done("ls")
        self.assertIn(f"mounted at {os.path.dirname(first)}", text)
        self.assertIn("total: 2 objects", text)
        for path in (first, second):
            self.instance.umount(os.path.dirname(path))
        self.instance.stop()
        stopped = self.rows()
        self.assertEqual(set(stopped), set(rows))
        for name, row in stopped.items():
            self.assertFalse(row["mounted"])
            for field in ("url", "size", "present", "pinned"):
                self.assertEqual(row[field], rows[name][field], f"{name} {field}")
            self.assertLess(abs(row["used"] - rows[name]["used"]), 5)
        for verb in (["limit"], ["pin", "x"], ["rm", "x"], ["prune"]):
            self.assertIn("is not running", self.refused(*verb))

    # Removals.
    def test_what_is_mounted_is_removed_only_as_bytes(self):
        path = self.mount(0)
        self.read(path, 0)
        point = os.path.dirname(path)
        said = self.refused("rm", point)
        self.assertIn(f"is mounted at {point}", said)
        self.assertIn("--bytes", said)
        self.done("pin", point)
        self.assertIn("pinned", self.refused("rm", "--bytes", point))
        self.done("unpin", point)
        self.done("rm", "--bytes", point)
        row = self.rows()["image0"]
        self.assertEqual(row["present"], 0)
        self.assertLess(row["allocated"], MB)
        self.read(path, 0)

    def test_what_is_not_mounted_is_removed_with_all_that_belongs_to_it(self):
        paths = [self.mount(number) for number in range(3)]
        for number, path in enumerate(paths):
            self.read(path, number)
        for path in paths[:2]:
            self.instance.umount(os.path.dirname(path))
        rows = self.rows()
        self.done("pin", rows["image0"]["name"])
        sources = self.sources()
        self.assertIn("nothing-there", self.refused("rm", rows["image0"]["name"], "nothing-there"))
        self.assertEqual(set(self.rows()), set(rows))
        said = json.loads(self.done("rm", "--json", self.url(0), rows["image1"]["name"]))
        self.assertGreaterEqual(said["bytes"], 2 * SIZE)
        self.assertEqual(set(self.rows()), {"image2"})
        self.assertEqual(sources - self.sources(), {rows[name]["volume"] + ".json" for name in ("image0", "image1")})
        self.assertIn(rows["image2"]["volume"] + ".json", self.sources())
        self.assertNotIn("choice name", self.instance.dump())
        self.read(self.mount(0), 0)
        self.assertFalse(self.rows()["image0"]["pinned"])

    def test_a_prune_takes_what_is_neither_mounted_nor_pinned(self):
        paths = [self.mount(number) for number in range(4)]
        for number, path in enumerate(paths):
            self.read(path, number)
        for path in paths[1:]:
            self.instance.umount(os.path.dirname(path))
        self.done("pin", self.rows()["image1"]["name"])
        self.assertEqual(json.loads(self.done("prune", "--json", "--older-than=1h"))["removed"], [])
        dry = json.loads(self.done("prune", "--json", "--dry-run"))
        self.assertGreaterEqual(dry["bytes"], 2 * SIZE)
        self.assertEqual(len(self.rows()), 4)
        done = json.loads(self.done("prune", "--json"))
        self.assertEqual({row["name"] for row in done["removed"]}, {row["name"] for row in dry["removed"]})
        self.assertEqual(done["bytes"], dry["bytes"])
        self.assertEqual(set(self.rows()), {"image0", "image1"})
        self.read(paths[0], 0)

    def test_what_another_mount_shows_after_a_lazy_umount_is_not_removed(self):
        self.mount(1)  # So that the instance goes on.
        image, tree = images.random_image(2, MB, seed=9)
        shutil.copy(image, os.path.join(self.root, "tree.erofs"))
        point = self.instance.mount(self.origin.url("tree.erofs"))
        for kind, arguments in (("overlay", ["-t", "overlay", "-o", f"lowerdir={point}:{self.root}", "overlay"]), ("bind", ["--bind", point])):
            with self.subTest(kind):
                other = self.box.make_directory(kind)
                self.assertEqual(self.box.run(["mount", *arguments, other]).returncode, 0)
        done = self.instance.run("umount", *self.instance.root_flags(), "--lazy", point)
        self.assertEqual(done.returncode, 0, done.stderr)
        for kind in ("bind", "overlay"):
            self.assertIn("tree.erofs", self.rows())
            self.done("prune")
            self.assertIn("tree.erofs", self.rows(), f"removed under the {kind}")
            for name in os.listdir(tree):
                self.assert_reads_right(os.path.join(self.box.path(kind), name), os.path.join(tree, name))
            self.assertEqual(self.box.run(["umount", self.box.path(kind)]).returncode, 0)
        self.done("prune")
        self.assertNotIn("tree.erofs", self.rows())

    def test_what_was_detached_in_use_is_not_removed(self):
        path = self.mount(0)
        self.read(path, 0)
        with open(path, "rb") as held:
            done = self.instance.run("umount", *self.instance.root_flags(), "--lazy", os.path.dirname(path))
            self.assertEqual(done.returncode, 0, done.stderr)
            name = self.rows()["image0"]["name"]
            self.assertIn(f"({os.getpid()})", self.refused("rm", name))
            self.assertEqual(held.read(MB), pread_all(os.open(self.truth(0), os.O_RDONLY), 0, MB))
        self.done("rm", name)
        self.assertEqual(self.rows(), {})

    # Deaths, and many at once.
    def test_the_daemon_dies_at_each_step_and_the_command_succeeds(self):
        fault = self.box.path("fault")
        paths = [self.mount(number, f"--daemon-flag=--fault-file={fault}", NO_READ_AHEAD) for number in range(2)]
        for number, path in enumerate(paths):
            self.read(path, number)
        self.instance.umount(os.path.dirname(paths[1]))
        removed = self.rows()["image1"]["name"]
        steps = [("store.before_choice", ["limit", "--max=1G"]), ("store.choice", ["limit", "--max=2G"]),
                 ("store.before_choice", ["pin", self.url(0)]), ("store.choice", ["unpin", self.url(0)]),
                 ("store.choice", ["pin", self.url(0)]), ("store.before_choice", ["unpin", self.url(0)]),
                 ("cull.recorded", ["rm", "--bytes", self.url(0)]), ("cull.punched", ["rm", "--bytes", self.url(0)]),
                 ("store.before_erase", ["rm", removed])]
        for point, verb in steps:
            with self.subTest(point=point, verb=verb):
                self.read(paths[0], 0)
                with open(fault, "w") as f:
                    f.write(point + " 1 exit\n")
                self.kill_daemon()
                armed = self.instance.daemon_pid()
                self.done(*verb)
                self.assertTrue(wait_gone(armed, 30))
                self.wait_daemon(armed)
                if verb[0] == "limit":
                    self.assertEqual(self.limits()["max_source"], "limit")
                elif verb[0] in ("pin", "unpin"):
                    self.assertEqual(self.rows()["image0"]["pinned"], verb[0] == "pin")
        self.assertEqual(set(self.rows()), {"image0"})
        self.assertEqual(self.limits()["max"], str(2 << 30))
        self.read(paths[0], 0)
        self.read(self.mount(1), 1)
        done = self.instance.run("verify", "--cache-dir", self.instance.state_path("cache"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_sixteen_commands_at_once(self):
        paths = [self.mount(number) for number in range(COUNT)]
        for number, path in enumerate(paths):
            self.read(path, number)
        for path in paths[4:]:
            self.instance.umount(os.path.dirname(path))
        names = {name: row["name"] for name, row in self.rows().items()}
        verbs = [["limit", "--max=1G"], ["limit", "--min-free=1M"], ["ls"], ["ls", "--json"], ["prune", "--older-than=1h"],
                 *(["rm", names[f"image{number}"]] for number in range(4, COUNT)),
                 *(["pin", names[f"image{number}"]] for number in range(3)),
                 *(["rm", "--bytes", names["image3"]] for _ in range(4))]
        self.assertEqual(len(verbs), 16)
        running = [subprocess.Popen(self.instance.command_line("cache", verb[0], *self.instance.root_flags(), "--instance",
                                                               self.instance.name, *verb[1:]),
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for verb in verbs]
        for verb, process in zip(verbs, running):
            out, err = process.communicate(timeout=180)
            self.assertEqual(process.returncode, 0, f"{verb}: {out}{err}")
        rows = self.rows()
        self.assertEqual(set(rows), {f"image{number}" for number in range(4)})
        self.assertEqual({name for name, row in rows.items() if row["pinned"]}, {f"image{number}" for number in range(3)})
        limits = self.limits()
        self.assertEqual((limits["max"], limits["min_free"]), (str(1 << 30), str(MB)))
        for number in range(4):
            self.read(paths[number], number)

    # A full disk.
    def test_images_that_are_larger_than_the_disk_together_are_read_without_a_limit(self):
        disk = Disk(self.box, "d", 64 * MB)
        cache = os.path.join(disk.path, "cache")
        for _ in range(2):
            for number in range(COUNT):
                path = self.mount(number, "--cache-dir", cache)
                self.read(path, number)
                self.instance.umount(os.path.dirname(path), "--keep")
        self.assertGreater(self.instance.status()["counters"]["bytes_culled"], COUNT * SIZE)

    def test_on_a_full_disk_what_no_mount_shows_goes_before_a_read_waits(self):
        disk = Disk(self.box, "d", 96 * MB)
        cache = os.path.join(disk.path, "cache")
        paths = [self.mount(number, "--cache-dir", cache) for number in range(6)]
        for number in (0, 1, 2, 4, 5):
            self.read(paths[number], number)
        self.done("pin", self.url(0))
        for number in (0, 1, 4, 5):
            self.instance.umount(os.path.dirname(paths[number]))
        self.kill_daemon()  # The next one knows the mounts: it need not wait for them to come back.
        fill_up(disk.path)
        self.read(paths[2], 2)
        self.read(paths[3], 3)
        rows = self.rows()
        self.assertEqual(rows["image0"]["present"], SIZE)  # It is pinned.
        self.assertLess(sum(rows[name]["present"] for name in ("image1", "image4", "image5") if name in rows), 3 * SIZE)
        self.assertEqual(rows["image2"]["present"], SIZE)  # It is mounted, and was used lately.

    def test_with_a_limit_what_was_used_least_recently_goes_on_a_full_disk(self):
        """All is mounted, and was used a moment ago: without a limit a read would wait for a minute."""
        disk = Disk(self.box, "d", 64 * MB)
        flags = ("--cache-dir", os.path.join(disk.path, "cache"), "--cache-min-free=1M")
        paths = [self.mount(number, *flags) for number in range(COUNT)]
        self.kill_daemon()  # The next one knows the mounts: it need not wait for them to come back.
        begun = time.monotonic()
        for _ in range(2):
            for number, path in enumerate(paths):
                self.read(path, number)
        self.assertLess(time.monotonic() - begun, 50, "reads waited until what is cached was old")
        self.assertGreater(self.instance.status()["counters"]["bytes_culled"], SIZE)

    # Rights.
    def test_another_user_is_told_that_it_needs_root(self):
        self.mount(0)
        for verb in (["ls"], ["limit"], ["pin", "x"], ["unpin", "x"], ["rm", "x"], ["prune"]):
            arguments = self.instance.command_line("cache", verb[0], *self.instance.root_flags(), "--instance",
                                                   self.instance.name, *verb[1:])
            done = as_nobody(run_captured, arguments)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("root", done.stderr)


if __name__ == "__main__":
    main()
