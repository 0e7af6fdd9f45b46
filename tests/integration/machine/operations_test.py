"""docs/operations.md: the commands of its indented blocks run as typed, one after the other, for the default instance."""

import os
import re
import subprocess

import _path  # noqa: F401
from harness.case import Case, main
from harness.holdfast import BIN

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
# Places of its own, and a PID namespace, with which the daemons end.
ALONE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
ETC = "mkdir /srv/etc /srv/work\nmount -t overlay overlay -o lowerdir=/etc,upperdir=/srv/etc,workdir=/srv/work /etc\n"
PLACES = ("/srv", "/mnt", "/run", "/var/lib", "/var/log")


class OperationsTest(Case):
    def test_the_commands_run(self):
        with open(os.path.join(ROOT, "docs/operations.md")) as f:
            blocks = re.findall(r"(?:^    .*\n)+", f.read(), re.M)
        commands = "".join(re.sub(r"^    ", "", block, flags=re.M) for block in blocks).replace("/tmp/", self.box.directory + "/")
        for verb in ("mount", "cache limit", "cache pin", "cache prune", "status --check", "metrics", "upgrade", "verify", "umount",
                     "mounts --restore", "config check"):
            self.assertIn(f"\nholdfast {verb}", "\n" + commands)
        places = "".join(f"mount -t tmpfs -o mode=755 tmpfs {place}\n" for place in PLACES) + ETC
        environment = dict(self.box.environment, PATH=BIN + ":" + os.environ["PATH"])
        environment.pop("HOLDFAST_ROOT", None)
        done = subprocess.run([*ALONE, "bash", "-euxc", places + commands], env=environment, timeout=150,
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"(?m)^OK\b")
        self.assertTrue(os.path.getsize(self.box.path("holdfast.prom")))


if __name__ == "__main__":
    main(tools=("mkfs.erofs", "unshare"))
