"""What a scrape of the metrics costs while a file is read: its time, and the processor time of holdfast-metricsd.

    metrics_scrape.py [SECONDS [MOUNTS]]    One scrape a second; by default 20 s and 20 mounts.
"""

import http.client
import os
import socket
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from harness import images  # noqa: E402
from harness.holdfast import Holdfast  # noqa: E402
from harness.origins.nginx import Nginx  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402

SIZE = 64 << 20


def processor_s(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scrape(path):
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        sys.exit(f"metrics_scrape: status {answer.status}")
    return len(text)


def main():
    seconds, mounts = [int(argument) for argument in (sys.argv[1:] + ["20", "20"][len(sys.argv) - 1:])]
    with Sandbox("scrape") as box:
        truth = images.random_file(SIZE)
        name = os.path.basename(truth)
        origin = Nginx(box, os.path.dirname(truth))
        origin.start()
        instance = Holdfast(box)
        points = [instance.mount(origin.url(name) + (f"?n={n}" if n else "")) for n in range(mounts)]
        reader = box.start(["sh", "-c", "while :; do dd if=\"$1\" of=/dev/null bs=64k iflag=direct 2>/dev/null; done", "sh", os.path.join(points[0], name)])
        pid, times, size = instance.pid_of("metricsd"), [], 0
        began = processor_s(pid)
        for _ in range(seconds):
            time.sleep(1)
            start = time.monotonic()
            size = scrape(instance.run_path("metrics.sock"))
            times.append((time.monotonic() - start) * 1000)
        used = processor_s(pid) - began
        reader.kill()
        reader.wait()
        print(f"{mounts} mounts, a reader, {size} bytes a scrape: median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms; "
              f"holdfast-metricsd {100 * used / seconds:.2f} % of a processor at one a second")
        for point in points:
            instance.umount(point)
        origin.stop()


if __name__ == "__main__":
    main()
