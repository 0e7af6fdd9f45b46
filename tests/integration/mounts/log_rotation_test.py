"""packaging/logrotate: logs are rotated below processes that live on."""

import glob
import os
import socket

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import NO_READ_AHEAD
from harness.readers import pread
from harness.sandbox import wait_until

CONFIGURATION = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../packaging/logrotate/holdfast")
SIZE = 1 << 20


class LogRotationTest(Case):
    def outputs(self):
        """What each process writes to: the supervisor, its standby, the daemons and the spare, but not the broker, which logs nothing."""
        found = {}
        for pid, _ in self.instance.processes():
            try:
                with open(f"/proc/{pid}/comm") as f:
                    if f.read().strip() == "holdfast-broker":
                        continue
                found[pid] = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (1, 2)}
            except FileNotFoundError:
                pass  # It has ended: a standby is renewed.
        return found

    def pids(self):
        return [self.instance.supervisor_pid(), self.instance.daemon_pid(), self.instance.attached_pid(), self.instance.pid_of("metricsd")]

    def test_logrotate_moves_the_logs_and_every_process_goes_on_in_new_ones(self):
        self.serve_random_image(2, SIZE, seed=3)
        taken = socket.create_server(("127.0.0.1", 0))  # So that the log of the metrics has a line: an empty one is not moved.
        self.addCleanup(taken.close)
        settings = os.path.join(self.box.make_directory(os.path.join(self.instance.root, "etc/holdfast")), self.instance.name + ".conf")
        with open(settings, "w") as f:
            f.write(f'[instance]\nmetrics-listen = "127.0.0.1:{taken.getsockname()[1]}"\n')
        point = self.instance.mount(self.url, NO_READ_AHEAD)
        wait_until(lambda: "tried again" in self.instance.log_text("metricsd"), 30, "a line of holdfast-metricsd")
        names = sorted(os.listdir(point))
        pids = self.pids()
        configuration = self.box.path("logrotate.conf")
        with open(CONFIGURATION) as f, open(configuration, "w") as copy:
            copy.write(f.read().replace(" /run/", f" {self.instance.root}/run/").replace("\n/var/", f"\n{self.instance.root}/var/"))
        self.assertTrue(glob.glob(self.instance.log_path("holdfastd")))
        done = self.box.run(["/usr/sbin/logrotate", "--force", "--state", self.box.path("state"), configuration])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        for program in ("holdfastd", "metricsd"):
            self.assertEqual(len(glob.glob(self.instance.log_path(program) + "-*")), 1, program)

        def all_write_to_new_ones():
            return all(path.endswith(".log") for paths in self.outputs().values() for path in paths)
        wait_until(all_write_to_new_ones, 30, "every process to write to a new log")
        self.assertGreaterEqual(len(self.outputs()), 4)
        self.assertEqual(self.pids(), pids)
        for name in names:
            with open(os.path.join(self.tree, name), "rb") as f:
                self.assertEqual(pread(os.path.join(point, name), 0, SIZE), f.read())
        # And they do write there.
        self.instance.kill_fetcher()
        self.instance.wait_fetcher(other_than=pids[2])
        wait_until(lambda: "fetcher resumed" in self.instance.log_text(), 30, "the new log to have a line")


if __name__ == "__main__":
    main(tools=("logrotate", "mkfs.erofs"))
