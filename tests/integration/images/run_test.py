"""`holdfast run` as a runtime's front: signals, terminals, users and networks."""

import os
import pty
import select
import signal
import subprocess

import _path  # noqa: F401
from harness.case import main
from harness.containers import TOOLS, ContainerCase
from harness.sandbox import wait_until

GROUP = "app:x:1001:\nstaff:x:2000:root,app\nothers:x:2001:root\n"


class RunTest(ContainerCase):
    def image_with_groups(self):
        def add_group_file(tree):
            with open(os.path.join(tree, "etc/group"), "w") as f:
                f.write(GROUP)
        return self.image("one", add_files=add_group_file)

    def test_a_signal_reaches_the_program_and_its_exit_code_comes_back(self):
        go = self.box.make_directory("go")
        image = self.image("one")
        for number in (signal.SIGTERM, signal.SIGINT):
            process = self.start("run", f"--volume={go}:/go", image, "--", "/bin/sh", "-c",
                                 "trap 'echo told; exit 9' TERM INT; echo > /go/here; while :; do sleep 0.1; done")
            wait_until(lambda: os.listdir(go) or process.poll() is not None, 60, "the container running")
            process.send_signal(number)
            out, errors = process.communicate(timeout=60)
            self.assertEqual((process.returncode, out), (9, "told\n"), errors)
            os.unlink(os.path.join(go, "here"))
        self.assert_nothing_left()

    def test_a_program_that_dies_of_a_signal_is_told_from_one_that_exits(self):
        # Not by itself: the first process of a namespace cannot.
        go = self.box.make_directory("go")
        process = self.start("run", "--name=c", f"--volume={go}:/go", self.image("one"), "--", "/bin/sh", "-c",
                             "echo > /go/here; sleep 1000")
        wait_until(lambda: os.listdir(go) or process.poll() is not None, 60, "the container running")
        state = self.holdfast_.state_path("rootfs/c/runc")
        done = self.box.run(["runc", "--root", state, "kill", "c", "KILL"])
        self.assertEqual(done.returncode, 0, done.stderr)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 128 + signal.SIGKILL, errors)
        self.assert_nothing_left()

    def test_a_shells_126_and_127_come_back(self):
        image = self.image("one")
        for command, code in (("/text", 126), ("/nowhere", 127), ("exit 5", 5)):
            done = self.command("run", image, "--", "/bin/sh", "-c", command)
            self.assertEqual(done.returncode, code, done.stderr)
        self.assert_nothing_left()

    def test_a_program_that_cannot_be_started_is_a_failure_that_names_it(self):
        image = self.image("one")
        for program in ("/text", "/nowhere", "nowhere"):
            done = self.command("run", image, "--", program)
            self.assert_one_line(done, program)
            self.assertEqual(done.returncode, 1)
        self.assert_nothing_left()

    def test_a_runtime_that_cannot_be_executed_is_named(self):
        image = self.image("one")
        runc = os.path.join(self.box.make_directory("tools"), "runc")
        with open(runc, "w") as f:
            f.write("#!/nowhere\n")
        os.chmod(runc, 0o755)
        environment = dict(self.box.environment, PATH=os.path.dirname(runc) + ":" + os.environ["PATH"])
        done = subprocess.run(self.arguments("run", image), text=True, capture_output=True, timeout=60, env=environment)
        self.assert_one_line(done, f"holdfast: run {runc}: No such file or directory$")
        self.assertEqual(done.returncode, 1)
        self.assert_nothing_left()

    def test_without_any_command_it_is_a_shell(self):
        done = subprocess.run(self.arguments("run", self.image("one")), input="echo $0; exit 7\n", text=True,
                              capture_output=True, timeout=60, env=self.box.environment)
        self.assertEqual((done.returncode, done.stdout), (7, "/bin/sh\n"), done.stderr)
        self.assert_nothing_left()

    def test_rm_force_ends_the_container_of_a_living_run(self):
        go = self.box.make_directory("go")
        process = self.start("run", "--name=k", f"--volume={go}:/go", self.image("one"), "--", "/bin/sh", "-c",
                             "echo > /go/here; sleep 1000")
        wait_until(lambda: os.listdir(go) or process.poll() is not None, 60, "the container running")
        self.assert_one_line(self.command("rootfs", "rm", "k"), "root file system k is in use .* --force ends")
        done = self.command("rootfs", "rm", "--force", "k")
        self.assertEqual(done.returncode, 0, done.stderr)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 128 + signal.SIGKILL, errors)
        self.assert_nothing_left()

    def test_a_user_has_the_groups_that_the_image_gives_him(self):
        image = self.image_with_groups()
        for user, said in (("app", "1000 1001 1001 2000\n"), ("1000:2001", "1000 2001 2001\n")):
            done = self.command("run", "--user=" + user, image, "--", "/bin/sh", "-c", "echo $(id -u) $(id -g) $(id -G)")
            self.assertEqual((done.returncode, done.stdout), (0, said), done.stderr)
        done = self.command("run", "--user=nobody-here", image, "--", "/bin/id")
        self.assert_one_line(done, "nobody-here")
        self.assert_nothing_left()

    def test_without_a_network_there_is_only_the_loopback(self):
        image = self.image("one")
        done = self.command("run", "--net=none", image, "--", "/bin/cat", "/proc/net/dev")
        self.assertEqual([line.split(":")[0].strip() for line in done.stdout.splitlines()[2:]], ["lo"], done.stderr)
        self.assert_nothing_left()

    def test_on_a_terminal_the_program_has_a_terminal(self):
        arguments = self.arguments("run", self.image("one"), "--", "/bin/sh", "-c", "test -t 0 && test -t 1 && echo both")
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                os.execve(arguments[0], arguments, self.box.environment)
            finally:
                os._exit(127)
        said = b""
        while select.select([terminal], [], [], 60)[0]:
            try:
                part = os.read(terminal, 4096)
            except OSError:  # Its other side is closed.
                break
            if not part:
                break
            said += part
        os.close(terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.assertEqual((code, said.strip()), (0, b"both"))
        self.assert_nothing_left()


if __name__ == "__main__":
    main(tools=TOOLS)
