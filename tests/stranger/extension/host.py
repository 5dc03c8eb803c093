"""Loads the shared object that it is given, and uses its pools: host.py OBJECT STEP BACKEND."""

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time

path, step, name = sys.argv[1:4]
backend = ["serial", "fork", "spawn"].index(name)
if os.environ.pop("MORE_RIGHTS", None):
    # What is executed by another user than it acts for is to the kernel as a setuid program is.
    os.setresuid(65534, 0, 0)
    os.execv(sys.executable, [sys.executable, *sys.argv])
extension = ctypes.CDLL(path)


def call(function, *arguments):
    function = getattr(extension, function)
    function.restype = ctypes.c_uint64
    answer = function(*map(ctypes.c_uint64, arguments))
    assert answer != 2**64 - 1, "it panicked"
    return answer


def works():
    """The sum, and what the initializer has set: nothing in a serial pool, which has none."""
    expected = sum(x * x + (7 if backend else 0) for x in range(1000))
    assert call("squares", 1000) == expected


def maps():
    assert call("open_pool", backend) == 0
    works()
    assert call("panics") == 0
    if backend:
        assert call("crash", 100) == 1
        works()
        assert call("describe_worker") == 0
        assert call("dumps") == 0
        if not os.environ.get("PROGRAM"):
            assert call("nests") == 0
    threads = [threading.Thread(target=works) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert call("close_pool") == 0


def with_threads():
    """With a thread there before the pool: what numpy has, for instance."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    if os.environ.get("SERVER_FIRST"):
        assert call("start_server") == 0
    thread.start()
    if call("open_pool", backend) == 0:
        works()
        assert call("close_pool") == 0
        print("it works")
    done.set()
    thread.join()


def opens():
    """Builds a pool, or says why it cannot."""
    if call("open_pool", backend) == 0:
        works()
        assert call("close_pool") == 0
        print("it works")


def replaced():
    """The object's file is replaced by another one while it is loaded, before or after the pool is
    built."""
    if os.environ["WHEN"] == "before":
        os.replace(os.environ["OTHER"], path)
        assert call("open_pool", backend) == 1
    else:
        assert call("open_pool", backend) == 0
        works()
        os.replace(os.environ["OTHER"], path)
        assert call("wait_for_the_end") == 0


def stays():
    """Has a pool and waits: somebody else ends it, or has ended."""
    # Python leaves Ctrl-C ignored or blocked where it finds it so: in the background of a script.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert call("open_pool", backend) == 0
    assert call("keep_busy") == 0
    sys.stdout.flush()
    # Again and again: Python notes a signal that comes just before it waits, and waits nonetheless.
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        pass


def leaves():
    """Ends with a pool that works."""
    assert call("open_pool", backend) == 0
    assert call("keep_busy") == 0


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def ends():
    """However Python ends, no worker stays."""
    for how, end in [
        ("leaves", lambda child: None),
        ("stays", lambda child: child.send_signal(signal.SIGINT)),
        ("stays", lambda child: child.send_signal(signal.SIGKILL)),
    ]:
        command = [sys.executable, __file__, path, how, name]
        pipes = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
        child = subprocess.Popen(command, text=True, **pipes)
        line = child.stdout.readline()
        assert line.startswith("workers ["), line + child.stderr.read()
        workers = [int(pid) for pid in line[9:-2].split(",")]
        assert len(workers) == 2
        end(child)
        child.wait()
        while any(map(is_alive, workers)):
            time.sleep(0.01)
        print(how, child.returncode)


globals()[step]()
print(step, name, "is done")
