"""What a mount of each kind of origin with credentials gives to other users: what the mount point shows, and no secret."""

import errno
import os
import resource
import shutil
import socket
import subprocess
import time

import _path  # noqa: F401
from harness import images, systemd
from harness.case import Case, main
from harness.holdfast import BIN
from harness.lookup_costs import assert_lookups_cost_nothing, look_up_absent, open_existing
from harness.oci_layout import OciLayout
from harness.origins import s3
from harness.origins.certificates import Authority
from harness.origins.oci_registry import PASSWORD, Registry, auth_file
from harness.origins.s3 import S3Server
from harness.other_user import as_nobody, error_of, in_mounts_of, read_file, readable_below
from harness.sandbox import processes_of, wait_until

TOKEN = "token-of-the-mount-5b1c88e2f0"
KEY, SECRET = "AKIAOTHERS0000000001", "secret-of-the-mount-77aa"


class OtherUsersOriginsTest(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.box.directory, 0o711)
        self.instance = self.holdfast()
        self.web = self.box.make_directory("web")
        for name in ("one", "two"):
            with open(os.path.join(self.web, name), "wb") as f:
                f.write(name.encode() * 5000)

    def assert_shows_only(self, point, name, content, others, secrets):
        self.assertEqual(as_nobody(os.listdir, point), [name])
        self.assertEqual(as_nobody(read_file, os.path.join(point, name)), content)
        objects = self.instance.status()["objects"]
        for thing in objects:
            directory = self.instance.run_path("fuse", thing["volume"])
            for inside in (thing["name"], *others):
                self.assertEqual(error_of(read_file, os.path.join(directory, inside)), errno.EACCES)
        for other in others:
            self.assertEqual(error_of(read_file, os.path.join(point, other)), errno.ENOENT)
            self.assertEqual(error_of(read_file, os.path.join(point, "..", other)), errno.ENOENT)
            for thing in objects:  # Nor for root.
                self.assertFalse(os.path.exists(self.instance.run_path("fuse", thing["volume"], other)))
        self.assert_directories_are_roots()
        self.assert_processes_tell_nothing(secrets)

    def assert_directories_are_roots(self):
        places = [self.instance.run_path(), self.instance.state_path(), os.path.dirname(self.instance.log_path("x"))]
        for place in (*places, os.path.join(os.path.dirname(self.instance.run_path()), ".locks")):
            self.assertEqual(readable_below(place), [], place)

    def assert_processes_tell_nothing(self, secrets):
        ours = [pid for pid in processes_of(self.box.directory) if self.is_ours(pid)]
        self.assertGreaterEqual(len(ours), 3)
        self.assert_pids_tell_nothing(ours, secrets)

    def assert_pids_tell_nothing(self, pids, secrets):
        for pid in pids:
            try:
                line = as_nobody(read_file, f"/proc/{pid}/cmdline").decode(errors="replace")
            except FileNotFoundError:
                continue  # It has ended: a standby is renewed.
            for secret in secrets:
                self.assertNotIn(secret, line)
            errors = {part: error_of(read_file, f"/proc/{pid}/{part}") for part in ("environ", "mem", "maps")}
            errors["fd"] = error_of(os.listdir, f"/proc/{pid}/fd")
            if not os.path.exists(f"/proc/{pid}"):
                continue
            for part, error in errors.items():
                self.assertIn(error, (errno.EACCES, errno.EPERM), f"{part} of {line}")

    @staticmethod
    def is_ours(pid):
        try:
            return os.path.dirname(os.readlink(f"/proc/{pid}/exe")) == os.path.realpath(BIN)
        except OSError:
            return False

    def test_https_with_headers(self):
        authority = Authority(self.box)
        headers = self.box.path("headers")
        with open(headers, "w") as f:
            f.write(f"X-Token: {TOKEN}\n")
        os.chmod(headers, 0o600)
        origin = self.serve(self.web, tls=authority.issue("server"),
                            locations=f'if ($http_x_token != "{TOKEN}") {{ return 401; }}')
        point = self.instance.mount(origin.url("one"), "--as=file", "--ca-file=" + authority.certificate,
                                    "--headers-file=" + headers)
        self.assert_shows_only(point, "one", b"one" * 5000, ("two", "none"), [TOKEN])
        assert_lookups_cost_nothing(self, self.instance, "absent names", look_up_absent, point)
        assert_lookups_cost_nothing(self, self.instance, "an existing name", open_existing, f"{point}/one")
        self.assertEqual([line for line in origin.log() if "absent" in line.uri], [])
        self.assertEqual([line for line in origin.log() if "two" in line.uri or "none" in line.uri], [])

    def test_s3_with_keys(self):
        if s3.missing():
            print(f"SKIP: {s3.missing()}")
            self.skipTest(s3.missing())
        server = S3Server(self.box)
        for name in ("one", "two"):
            server.put(name, os.path.join(self.web, name))
        server.add_key(KEY, SECRET)
        self.box.environment.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET)
        point = self.instance.mount("s3://images/one", "--s3-endpoint=" + server.endpoint, "--s3-path-style", "--as=file")
        self.assert_shows_only(point, "one", b"one" * 5000, ("two", "none"), [SECRET])
        self.assertEqual([entry for entry in server.log() if entry["path"].endswith(("two", "none"))], [])

    def test_a_registry_with_a_password(self):
        registry = Registry(self.box, Authority(self.box), "basic", "registry").start()
        image, _ = images.random_image(2, 1 << 20, seed=42)
        layout = OciLayout(self.box.path("layout"))
        manifest = layout.holdfast_manifest(image)
        layout.tag("v1", layout.add_json(manifest))
        reference = registry.push(layout, "v1", "repo/image")
        point = self.instance.mount(reference, "--as=file", *registry.flags(auth_file(self.box, registry.host)))
        blob = manifest["layers"][0]["digest"]
        with open(image, "rb") as f:
            self.assert_shows_only(point, blob, f.read(), (manifest["config"]["digest"], "sha256:" + "0" * 64), [PASSWORD])

    def test_an_image_by_reference_through_a_layout(self):
        tree = self.box.make_directory("tree")
        with open(os.path.join(tree, "secret"), "w") as f:
            f.write("TOPSECRET" * 100)
        os.chmod(os.path.join(tree, "secret"), 0o600)
        image = self.box.path("image.erofs")
        images.make_erofs(tree, image)
        layout = OciLayout(self.box.path("layout"))
        manifest = layout.holdfast_manifest(image)
        layout.tag("v1", layout.add_json(manifest))
        point = self.instance.mount(f"oci-layout:{layout.directory}:v1")
        self.assertEqual(as_nobody(os.listdir, point), ["secret"])
        self.assertEqual(error_of(read_file, os.path.join(point, "secret")), errno.EACCES)
        blob = manifest["layers"][0]["digest"]
        for thing in self.instance.status()["objects"]:
            for name in (thing["name"], blob, manifest["config"]["digest"], "none"):
                path = self.instance.run_path("fuse", thing["volume"], name)
                self.assertEqual(error_of(read_file, path), errno.EACCES)
        self.assert_directories_are_roots()
        self.assert_processes_tell_nothing([])

    def systemd_machine(self):
        for reason in systemd.unmet():
            self.skipTest(reason)
        machine = systemd.SystemdMachine(self.box)
        self.addCleanup(machine.close)
        machine.systemctl("start", "holdfastd@t.service")
        return machine

    def assert_systemd_instance_is_roots(self, machine, secrets):
        """Its directories, what its FUSE tree holds, and its processes."""
        volumes = in_mounts_of(machine.pid, os.listdir, "/run/holdfast/t/fuse")
        self.assertNotEqual(volumes, [])
        for volume in volumes:
            self.assertEqual(in_mounts_of(machine.pid, readable_below, f"/run/holdfast/t/fuse/{volume}"), [], volume)
        for directory in ("/run/holdfast/t", "/var/lib/holdfast/t", "/run/holdfast/.locks"):
            self.assertEqual(in_mounts_of(machine.pid, readable_below, directory), [], directory)
            info = in_mounts_of(machine.pid, os.stat, directory)
            self.assertEqual((info.st_uid, info.st_mode & 0o077), (0, 0), directory)
        for directory in ("/run/holdfast", "/var/lib/holdfast"):
            info = in_mounts_of(machine.pid, os.stat, directory)
            self.assertEqual((info.st_uid, info.st_mode & 0o022), (0, 0), directory)
        pids = [machine.main_pid(unit) for unit in ("holdfastd@t.service", "holdfast-fetcherd@t.service")]
        with open(f"/proc/{pids[1]}/task/{pids[1]}/children") as f:
            pids += [int(pid) for pid in f.read().split()]
        self.assertEqual(len(pids), 3, "daemon, fetcher and broker")
        self.assert_pids_tell_nothing(pids, secrets)

    def test_an_instance_of_systemd_with_headers(self):
        machine = self.systemd_machine()
        headers = self.box.path("state", "headers")  # /var/lib/holdfast there.
        with open(os.open(headers, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            f.write(f"X-Token: {TOKEN}\n")
        authority = Authority(self.box)
        shutil.copy(authority.certificate, self.box.path("state", "ca"))
        origin = self.serve(self.web, tls=authority.issue("server"),
                            locations=f'if ($http_x_token != "{TOKEN}") {{ return 401; }}')
        machine.run("mkdir", "-p", "/run/mnt")
        machine.run("sh", "-c", "umask 0; holdfast mount --instance t --as=file --ca-file=/var/lib/holdfast/ca "
                    f"--headers-file=/var/lib/holdfast/headers {origin.url('one')} /run/mnt")

        def seen(action, *arguments):
            return in_mounts_of(machine.pid, as_nobody, action, *arguments)

        self.assertEqual(seen(os.listdir, "/run/mnt"), ["one"])
        self.assertEqual(seen(read_file, "/run/mnt/one"), b"one" * 5000)
        for other in ("two", "none", "../two"):
            self.assertEqual(in_mounts_of(machine.pid, error_of, read_file, f"/run/mnt/{other}"), errno.ENOENT)
        self.assert_systemd_instance_is_roots(machine, [TOKEN])
        self.assertEqual([line for line in origin.log() if "two" in line.uri or "none" in line.uri], [])

    def test_an_image_by_reference_in_an_instance_of_systemd(self):
        machine = self.systemd_machine()
        image, tree = images.random_image(2, 1 << 20, seed=43)
        layout = OciLayout(self.box.path("state", "layout"))
        layout.tag("v1", layout.add_json(layout.holdfast_manifest(image)))
        machine.run("mkdir", "-p", "/run/mnt")
        machine.run("sh", "-c", "umask 0; holdfast mount --instance t oci-layout:/var/lib/holdfast/layout:v1 /run/mnt")
        self.assertEqual(sorted(in_mounts_of(machine.pid, as_nobody, os.listdir, "/run/mnt")), sorted(os.listdir(tree)))
        self.assert_systemd_instance_is_roots(machine, [])

    def test_supervise_in_the_foreground(self):
        supervisor = self.box.start([os.path.join(BIN, "holdfast"), "supervise", "--root", self.instance.root,
                                     "--instance", self.instance.name], stderr=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(self.instance.run_path("control.sock")), 30, "the daemon's socket")
        wait_until(self.instance.attached_pid, 30, "a fetcher")
        os.chmod(os.path.join(self.web, "one"), 0o600)  # The fetcher is given it by root.
        point = self.instance.mount(f"file://{self.web}/one", "--as=file")
        self.assert_shows_only(point, "one", b"one" * 5000, ("two", "none"), [])
        self.assertIsNone(supervisor.poll())

    def test_a_daemon_without_descriptors_does_not_spin_and_answers_again(self):
        self.instance.mount(self.serve(self.web).url("one"), "--as=file")
        pid = self.instance.daemon_pid()
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
        kept = []
        try:
            for _ in range(used):  # Of them it takes as many as there are gaps below its limit.
                peer = socket.socket(socket.AF_UNIX)
                kept.append(peer)
                peer.connect(self.instance.run_path("control.sock"))
            begin, cpu = time.monotonic(), self.cpu_s(pid)
            wait_until(lambda: time.monotonic() > begin + 2, 10, "two seconds of it")
            self.assertLess(self.cpu_s(pid) - cpu, 0.5)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            for peer in kept:
                peer.close()
        self.assertTrue(self.instance.status()["ok"])
        self.instance.assert_daemon_is(pid)

    @staticmethod
    def cpu_s(pid):
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(tools=("mkfs.erofs",))
