"""What look-ups of another user cost the daemon: some CPU time, and nothing that stays."""

import os

from harness.other_user import as_nobody

LOOKUPS = 20000
CPU_MS_EACH = 0.2


def look_up_absent(count, directory, first=0):
    for i in range(count):
        if os.path.lexists(f"{directory}/absent-{first + i}"):
            raise FileExistsError(f"absent-{first + i} is there")


def open_existing(count, path):
    for _ in range(count):
        os.close(os.open(path, os.O_RDONLY))


def costs(instance):
    """Of the daemon: CPU time in ms, RSS, descriptors, bytes of the database, bytes of logs."""
    pid = instance.daemon_pid()
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    cpu_ms = (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
    database = instance.state_path("cache", "db")
    size = sum(os.path.getsize(os.path.join(database, name)) for name in os.listdir(database))
    logs = sum(len(instance.log_text(program)) for program in ("holdfastd", "fetcherd"))
    return {"cpu_ms": cpu_ms, "rss": instance.rss_bytes(),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")), "database": size, "logs": logs}


def assert_lookups_cost_nothing(case, instance, what, action, *arguments):
    """`action(count, *arguments)` makes so many look-ups, as another user."""
    as_nobody(action, 200, *arguments)  # What is made once is made now.
    before = costs(instance)
    as_nobody(action, LOOKUPS, *arguments)
    after = costs(instance)
    each = (after["cpu_ms"] - before["cpu_ms"]) / LOOKUPS
    print(f"{LOOKUPS} look-ups of {what}: {each * 1000:.0f} us of daemon CPU each, RSS "
          f"{(after['rss'] - before['rss']) / 1024:+.0f} KiB", flush=True)
    case.assertLess(each, CPU_MS_EACH)
    case.assertLess(after["rss"] - before["rss"], 1 << 20)
    # What was read before them may be recorded as durable meanwhile.
    case.assertLess(after["database"] - before["database"], 1024)
    for kind in ("descriptors", "logs"):
        case.assertEqual(after[kind], before[kind], kind)
