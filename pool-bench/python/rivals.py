"""Python's pools as contenders of `compare`: one pool per process, one job per line.

`rivals.py --contender "mp.Pool fork" --workers 2` says {"ready": ...} or {"missing": ...}, then reads jobs as JSON,
one per line (see job.rs), and answers each with {"value": seconds per item, "n": items}, {"unsupported": ...},
{"wrong": ...} or {"error": ...}. It takes the time itself and checks every result.

With `--trial` it does one task, says {"ready": ...} or {"missing": ...}, and ends.
"""

import argparse
import array
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from time import perf_counter_ns


# --- the functions that the pools run ---


def square(x):
    return (x * x) & 0xFFFFFFFFFFFFFFFF


def spin(item):
    """Computes; the steps take as long as calibrated, in this interpreter."""
    seed, steps = item
    x = seed + 1
    for _ in range(steps):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return x


def echo(value):
    return value


def block(path):
    """Occupies a worker until somebody opens the named pipe for writing."""
    with open(path, "rb"):
        return True


class Wrong(Exception):
    """A result that is not what it must be."""


class Unsupported(Exception):
    """A job that this pool has no means for."""


# --- the pools: submit() gives something to call for the result ---


class MpPool:
    def __init__(self, method, workers):
        import multiprocessing

        self.pool = multiprocessing.get_context(method).Pool(workers)

    def submit(self, function, argument):
        return self.pool.apply_async(function, (argument,)).get

    def apply(self, function, argument):
        return self.pool.apply(function, (argument,))

    def map(self, function, items):
        return self.pool.map(function, items)

    def imap(self, function, items):
        return self.pool.imap(function, items)

    def close(self):
        self.pool.terminate()
        self.pool.join()


class Executor:
    """concurrent.futures.ProcessPoolExecutor, and loky, which has the same face."""

    def __init__(self, executor, workers):
        self.executor = executor
        self.workers = workers

    def submit(self, function, argument):
        return self.executor.submit(function, argument).result

    def apply(self, function, argument):
        return self.executor.submit(function, argument).result()

    def map(self, function, items):
        # Its default of 1 is ten times as slow; this is what multiprocessing.Pool chooses.
        chunksize = max(1, -(-len(items) // (4 * self.workers)))
        return list(self.executor.map(function, items, chunksize=chunksize))

    def close(self):
        self.executor.shutdown(wait=True)


class Mpire:
    """Single tasks and map have pools of their own: the first map after an apply_async is given the wrong
    arguments (2.10.2)."""

    def __init__(self, workers):
        import mpire

        self.build = lambda: mpire.WorkerPool(n_jobs=workers, keep_alive=True)
        self.tasks = None
        self.maps = None

    def submit(self, function, argument):
        self.tasks = self.tasks or self.build()
        return self.tasks.apply_async(function, (argument,)).get

    def apply(self, function, argument):
        self.tasks = self.tasks or self.build()
        return self.tasks.apply(function, (argument,))

    def map(self, function, items):
        self.maps = self.maps or self.build()
        # Tuples would be taken for several arguments.
        wrapped = [(item,) if isinstance(item, tuple) else item for item in items]
        return self.maps.map(function, wrapped)

    def close(self):
        for pool in (self.tasks, self.maps):
            if pool is not None:
                pool.terminate()


class Pebble:
    def __init__(self, workers):
        import pebble

        self.pool = pebble.ProcessPool(max_workers=workers)
        self.workers = workers

    def submit(self, function, argument):
        return self.pool.schedule(function, args=[argument]).result

    def apply(self, function, argument):
        return self.submit(function, argument)()

    def map(self, function, items):
        chunksize = max(1, -(-len(items) // (4 * self.workers)))
        return list(self.pool.map(function, items, chunksize=chunksize).result())

    def close(self):
        self.pool.stop()
        self.pool.join()


def executor(workers):
    from concurrent.futures import ProcessPoolExecutor

    return Executor(ProcessPoolExecutor(max_workers=workers), workers)


def loky(workers):
    from loky import ProcessPoolExecutor

    return Executor(ProcessPoolExecutor(max_workers=workers, timeout=None), workers)


class Ray:
    """Its tasks; map by its own pool of actors."""

    def __init__(self, workers):
        import ray
        from ray.util.multiprocessing import Pool

        self.ray = ray
        ray.init(num_cpus=workers, log_to_driver=False, include_dashboard=False, logging_level="error")
        self.remotes = {}
        self.pool = Pool(workers)

    def reference(self, function, argument):
        remote = self.remotes.get(function)
        if remote is None:
            remote = self.remotes[function] = self.ray.remote(function)
        return remote.remote(argument)

    def submit(self, function, argument):
        reference = self.reference(function, argument)
        return lambda: self.ray.get(reference)

    def apply(self, function, argument):
        return self.ray.get(self.reference(function, argument))

    def map(self, function, items):
        return self.pool.map(function, items)

    def close(self):
        self.pool.terminate()
        self.ray.shutdown()


class Dask:
    def __init__(self, workers):
        from dask.distributed import Client, LocalCluster

        self.cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        self.client = Client(self.cluster)
        self.workers = workers

    def submit(self, function, argument):
        # What is pure is looked up, and not run, the second time.
        return self.client.submit(function, argument, pure=False).result

    def apply(self, function, argument):
        return self.submit(function, argument)()

    def map(self, function, items):
        chunksize = max(1, -(-len(items) // (4 * self.workers)))
        futures = self.client.map(function, items, pure=False, batch_size=chunksize)
        return self.client.gather(futures)

    def close(self):
        self.client.close()
        self.cluster.close()


def mpi4py(workers):
    from mpi4py.futures import MPIPoolExecutor

    return Executor(MPIPoolExecutor(max_workers=workers), workers)


POOLS = {
    "mp.Pool fork": lambda workers: MpPool("fork", workers),
    "mp.Pool spawn": lambda workers: MpPool("spawn", workers),
    "ProcessPoolExecutor": executor,
    "loky": loky,
    "mpire": Mpire,
    "pebble": Pebble,
    "Ray": Ray,
    "Dask": Dask,
    "mpi4py": mpi4py,
}

MODULES = {
    "loky": "loky",
    "mpire": "mpire",
    "pebble": "pebble",
    "Ray": "ray",
    "Dask": "dask.distributed",
    "mpi4py": "mpi4py.futures",
}


# --- the jobs ---


def check(right, what):
    if not right:
        raise Wrong(what)


def resident_bytes():
    with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise OSError("the kernel does not tell our memory")


class Contender:
    def __init__(self, name, workers):
        self.build = POOLS[name]
        self.workers = workers
        self.pool = None
        # Those with imap; the others take their whole input before they begin.
        self.is_lazy = name in ("mp.Pool fork", "mp.Pool spawn")
        self.steps_per_us = self.calibrate()

    @staticmethod
    def calibrate():
        # The fastest of many short tries: whatever disturbs makes it slower.
        steps, times = 5_000, []
        for _ in range(60):
            start = perf_counter_ns()
            spin((1, steps))
            times.append(perf_counter_ns() - start)
        return steps / (min(times) / 1e3)

    def steps(self, microseconds):
        return max(1, round(self.steps_per_us * microseconds))

    def ready(self):
        if self.pool is None:
            self.pool = self.build(self.workers)
        return self.pool

    def close(self):
        if self.pool is not None:
            self.pool.close()
            self.pool = None

    def run(self, job):
        kind = job.pop("job")
        method = getattr(self, "job_" + kind, None)
        if method is None:
            raise Unsupported(kind)
        return method(**job)

    def job_apply(self, n):
        apply = self.ready().apply
        start = perf_counter_ns()
        for x in range(n):
            if apply(square, x) != x * x:
                raise Wrong(f"the square of {x}")
        return perf_counter_ns() - start, n

    def job_apply_after_sleep(self, n, pause_us):
        apply = self.ready().apply
        total = 0
        for x in range(n):
            time.sleep(pause_us / 1e6)
            start = perf_counter_ns()
            result = apply(square, x)
            total += perf_counter_ns() - start
            check(result == x * x, f"the square of {x}")
        return total, n

    def job_apply_async(self, n):
        submit = self.ready().submit
        start = perf_counter_ns()
        handles = [submit(square, x) for x in range(n)]
        results = [get() for get in handles]
        elapsed = perf_counter_ns() - start
        check(results == [square(x) for x in range(n)], "squares")
        return elapsed, n

    def job_map_squares(self, n):
        pool, items = self.ready(), range(n)
        start = perf_counter_ns()
        results = pool.map(square, items)
        elapsed = perf_counter_ns() - start
        check(results == [square(x) for x in items], "squares")
        return elapsed, n

    def job_map_spin(self, n, item_us):
        steps = self.steps(item_us)
        return self.spins([(index % 8, steps) for index in range(n)]), n

    def job_map_tail(self, n, item_us, factor, heavy):
        steps = self.steps(item_us)
        middle = n // 2

        def is_heavy(index):
            return index < heavy or middle <= index < middle + heavy or index + heavy >= n

        items = [(index % 8, steps * factor if is_heavy(index) else steps) for index in range(n)]
        return self.spins(items), 1

    def spins(self, items):
        pool = self.ready()
        start = perf_counter_ns()
        results = pool.map(spin, items)
        elapsed = perf_counter_ns() - start
        known = {item: spin(item) for item in set(items)}
        check(results == [known[item] for item in items], "computations")
        return elapsed

    def job_imap(self, n, item_us):
        pool = self.ready()
        if not self.is_lazy:
            raise Unsupported("imap")
        steps = self.steps(item_us)
        # Its reader takes as much of its input as there is: an endless one would fill the memory.
        items = ((index % 8, steps) for index in range(n))
        start = perf_counter_ns()
        results = list(itertools.islice(pool.imap(spin, items), n))
        elapsed = perf_counter_ns() - start
        check(results == [spin((index % 8, steps)) for index in range(n)], "computations")
        return elapsed, n

    def job_echo(self, n, bytes, floats):  # the names are the job's
        pool = self.ready()
        if floats:
            payload = array.array("d", range(bytes // 8))
        else:
            payload = (b"0123456789abcdef" * (bytes // 16 + 1))[:bytes]
        start = perf_counter_ns()
        echoes = [pool.apply(echo, payload) for _ in range(n)]
        elapsed = perf_counter_ns() - start
        for answer in echoes:
            check(answer == payload, f"echo of {bytes} bytes")
        return elapsed, n

    def job_start(self, workers, resident):
        memory = bytearray(b"\1") * resident
        start = perf_counter_ns()
        pool = self.build(workers)
        handles = [pool.submit(square, x) for x in range(workers)]
        results = [get() for get in handles]
        elapsed = perf_counter_ns() - start
        check(results == [square(x) for x in range(workers)], "squares")
        pool.close()
        del memory
        return elapsed, 1

    def job_submitters(self, n, threads):
        pool = self.ready()
        each = max(1, n // threads)
        wrong = []

        def submit():
            for x in range(each):
                if pool.apply(square, x) != x * x:
                    wrong.append(x)

        crowd = [threading.Thread(target=submit) for _ in range(threads)]
        start = perf_counter_ns()
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        elapsed = perf_counter_ns() - start
        check(not wrong, "squares")
        return elapsed * n // (each * threads), n

    def job_queue(self, n):
        pool = self.ready()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "gate")
            os.mkfifo(path)
            blocked = [pool.submit(block, path) for _ in range(2 * self.workers)]
            before = resident_bytes()
            handles = [pool.submit(square, x) for x in range(n)]
            after = resident_bytes()
            with open(path, "r+b", buffering=0):
                check(all(get() for get in blocked), "a worker could not be blocked")
                check([get() for get in handles] == [square(x) for x in range(n)], "squares")
        return (after - before) * 1e9, n

    def job_hold(self):
        check(self.ready().map(square, range(1000)) == [square(x) for x in range(1000)], "squares")
        return 0, 1

    def job_workers(self, workers):
        self.close()
        self.workers = workers
        return 0, 1


def answer(contender, line):
    try:
        elapsed, n = contender.run(json.loads(line))
        return {"value": elapsed / n / 1e9, "n": n}
    except Unsupported as error:
        return {"unsupported": str(error)}
    except Wrong as error:
        return {"wrong": str(error)}
    except Exception as error:  # whatever it is, the other side is to know
        return {"error": repr(error)}


def say(answers, message):
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def ready():
    return {"ready": f"Python {sys.version.split()[0]}"}


def trial(contender, answers):
    """Says whether there is a result of one task."""

    def give_up(error):
        say(answers, {"missing": error})
        # What waits for the task when a program ends would wait forever.
        os._exit(1)

    # mpi4py starts its workers in a thread. Where that fails, the task has neither a result nor an
    # error, ever.
    def thread_failed(thread):
        give_up(one_line(f"{thread.exc_type.__name__}: {thread.exc_value}"))

    threading.excepthook = thread_failed
    outcome = answer(contender, '{"job": "apply", "n": 1}')
    if "error" in outcome:
        give_up(one_line(outcome["error"]))
    threading.excepthook = threading.__excepthook__
    contender.close()
    say(answers, outcome if "wrong" in outcome else ready())


def one_line(text):
    return " ".join(text.split())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contender", choices=sorted(POOLS), required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--trial", action="store_true")
    arguments = parser.parse_args()
    # Answers get a descriptor of their own, so that nothing that a library or a worker prints is taken for one.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module = MODULES.get(arguments.contender)
    try:
        if module is not None:
            __import__(module)
        contender = Contender(arguments.contender, arguments.workers)
    except ImportError as error:
        say(answers, {"missing": f"not found: {one_line(str(error))}"})
        return
    if arguments.trial:
        trial(contender, answers)
        return
    say(answers, ready())
    for line in sys.stdin:
        say(answers, answer(contender, line))
    contender.close()


if __name__ == "__main__":
    main()
