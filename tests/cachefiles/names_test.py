"""The names of objects' files in the directory of a daemon of the kernel's interface."""

import errno
import os

import _path  # noqa: F401
from harness.cachefiles.backing_case import PAGE, SIZE, BackingCase
from harness.case import main
from harness.sandbox import wait_until


class NamesTest(BackingCase):
    def files(self):
        return [os.path.join(where, name) for where, _, names in os.walk(self.directory) for name in names]

    def test_a_new_object_has_its_name_when_its_use_has_ended(self):
        self.raw.bind(self.directory)
        path, message = self.acquire()
        self.read_one(path, message)
        self.assertEqual(self.files(), [])
        self.release(message)
        wait_until(lambda: self.files() == [self.path_of()], 20, "the file has its name")
        with open(self.path_of(), "rb") as f:
            self.assertEqual(f.read(PAGE), self.truth[:PAGE])
        _, message = self.acquire()
        self.assertEqual(self.files(), [self.path_of()], "an old one keeps its name while it is used")

    def test_the_objects_of_a_closed_device_have_their_names(self):
        self.raw.bind(self.directory)
        path, message = self.acquire()
        self.read_one(path, message)
        self.raw.close()
        wait_until(lambda: self.files() == [self.path_of()], 20, "the file has its name")

    def test_what_was_deleted_is_fetched_again(self):
        self.raw.bind(self.directory)
        self.stored()
        os.unlink(self.path_of())
        path, message = self.acquire()
        self.read_one(path, message)
        self.release(message)
        wait_until(lambda: self.files() == [self.path_of()], 20, "it has its name again")

    def test_what_was_replaced_is_fetched_again(self):
        self.raw.bind(self.directory)
        self.stored()
        os.unlink(self.path_of())
        with open(self.path_of(), "wb") as f:
            f.write(bytes(SIZE))
        path, message = self.acquire()
        self.read_one(path, message)

    def test_what_was_deleted_while_it_is_used_is_served_to_the_end(self):
        self.raw.bind(self.directory)
        self.stored()
        path, message = self.acquire()
        os.unlink(self.path_of())
        self.assert_right(self.reader(path))
        self.release(message)
        path, message = self.acquire()
        self.read_one(path, message)

    def test_names_that_are_missing_are_made_by_the_next_bind(self):
        self.raw.bind(self.directory)
        path, message = self.acquire()
        self.read_one(path, message)
        self.machine.kill(self.machine.daemon)
        self.assertEqual(self.files(), [])
        self.assertTrue(self.machine.start_daemon(), self.machine.last_words())
        self.raw = self.open_raw()
        self.raw.bind(self.directory)
        self.assertEqual(self.files(), [self.path_of()])

    def test_a_deleted_file_frees_its_space_at_the_next_bind(self):
        self.raw.bind(self.directory)
        self.stored()
        self.stored("other")
        wait_until(lambda: len(self.files()) == 2, 20, "the files have their names")
        os.unlink(self.path_of())
        self.raw.close()
        self.raw = self.open_raw()
        self.raw.bind(self.directory)
        known = self.machine.control({"op": "status"})["objects"]
        self.assertEqual([info["name"] for info in known], ["other"])

    def test_a_directory_on_another_file_system_has_files_without_bytes(self):
        self.bind_elsewhere("other")
        self.raw.bind(self.directory)
        self.stored()
        wait_until(lambda: self.path_of() in self.files(), 20, "the file has its name")
        self.assertEqual(os.stat(self.path_of()).st_size, SIZE)
        self.assertEqual(os.stat(self.path_of()).st_blocks, 0)
        self.raw.chdir(os.path.dirname(self.path_of()))
        self.assertEqual(self.raw.error("inuse Dobject"), 0)
        os.unlink(self.path_of())
        self.assertEqual(self.raw.error("inuse Dobject"), errno.ENOENT)
        path, message = self.acquire()
        self.read_one(path, message)


if __name__ == "__main__":
    main()
