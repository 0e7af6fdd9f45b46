"""What a service of the kernel's interface does at its start, and then becomes: `storing_daemon.py DEVICE PROGRAM ARGUMENT...`.

It opens the device and has the service manager keep it; the program gets `fd:N`, its arguments and `bind`.  Where the
service manager gives it back, the program gets `restore`.
"""

import os
import socket
import sys

FIRST = 3  # As sd_listen_fds(3) has it.


def notify(text, fds=()):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(manager, [text.encode()], fds)


def main(device, program, *arguments):
    if os.environ.get("LISTEN_FDS", "0") != "0":
        fd, how = FIRST, "restore"
    else:
        fd, how = os.open(device, os.O_RDWR), "bind"
        notify("FDSTORE=1\nFDNAME=cachefiles\nFDPOLL=0", [fd])
    notify("READY=1")
    os.set_inheritable(fd, True)
    os.execv(program, [program, f"fd:{fd}", *arguments[:2], how, *arguments[2:]])


if __name__ == "__main__":
    main(*sys.argv[1:])
