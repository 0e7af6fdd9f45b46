"""Everything that can be seen of a tree without changing it, to compare two of them."""

import hashlib
import os
import stat


def snapshot(tree, times_of=None):
    """{path as bytes: what it is}.  Hard links are told by the first of their names.

    `times_of`: tells of a directory's path whether its time counts."""
    found, links = {}, {}
    root = os.fsencode(tree)
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in [b"."] if folder == root else []:
            found[name] = _entry(folder, name, links, times_of)
        for name in sorted(folders + names):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            found[relative] = _entry(path, relative, links, times_of)
    for entry in found.values():
        entry["links"] = links[entry.pop("inode")]
    return found


def _entry(path, relative, links, times_of):
    info = os.lstat(path)
    is_directory = stat.S_ISDIR(info.st_mode)
    inode = (info.st_dev, info.st_ino)
    links.setdefault(inode, []).append(relative)
    entry = {"mode": oct(info.st_mode), "owner": (info.st_uid, info.st_gid), "inode": inode}
    if not is_directory or times_of is None or times_of(relative):
        entry["mtime"] = info.st_mtime_ns
    if not is_directory:
        entry["link_count"] = info.st_nlink
    if stat.S_ISREG(info.st_mode):
        entry["size"] = info.st_size
        with open(path, "rb") as f:
            entry["sha256"] = hashlib.file_digest(f, "sha256").hexdigest()
    elif stat.S_ISLNK(info.st_mode):
        entry["target"] = os.readlink(path)
    elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        entry["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
    entry["xattrs"] = {name: os.getxattr(path, name, follow_symlinks=False)
                       for name in sorted(os.listxattr(path, follow_symlinks=False))}
    return entry


def differences(left, right):
    """What is not the same, a line each."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        a, b = left.get(path), right.get(path)
        if a is None or b is None:
            lines.append(f"{path!r}: only in the {'second' if a is None else 'first'}")
            continue
        lines += [f"{path!r}: {key}: {a.get(key)!r} and {b.get(key)!r}" for key in sorted(a.keys() | b.keys())
                  if a.get(key) != b.get(key)]
    return lines
