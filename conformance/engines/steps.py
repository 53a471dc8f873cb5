"""What steps.sh is to bash scripts: steps with a name and a result, and a table."""
import concurrent.futures, os, re, subprocess, sys, time, traceback

engine = os.path.basename(sys.argv[0])
counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
begun = time.monotonic()


class Skip(Exception):
    pass


def step(name, smoke=False):
    """Runs the decorated function at once."""
    def run(test):
        if os.environ.get("SMOKE") and not smoke or not re.search(os.environ.get("STEPS", ""), name):
            return test
        start, told = time.monotonic(), ""
        try:
            test()
            result = "PASS"
        except Skip as fact:
            result, told = "SKIP", f": needs {fact}"
        except Exception:
            result, told = "FAIL", "\n" + traceback.format_exc()
        counts[result] += 1
        first, *rest = told.split("\n")
        print(f"{result} {engine}: {name}{first} ({time.monotonic() - start:.0f} s)", flush=True)
        for line in rest:
            print("    " + line[:1500], flush=True)
        return test
    return run


def finish(variant=""):
    print(f"TABLE {engine}{variant and f' ({variant})'}: {counts['PASS']} passed, {counts['FAIL']} failed, "
          f"{counts['SKIP']} skipped, {time.monotonic() - begun:.0f} s")
    sys.exit(counts["FAIL"] > 0)


def same(got, want):
    assert got == want, f"want {want!r}, got {got!r}"


def has(text, part):
    assert part in text, f"no {part!r} in {text!r}"


def eventually(what, test, patience=60):
    start = time.monotonic()
    while True:
        value = test()
        if value:
            return value
        waited = time.monotonic() - start
        assert waited < patience, f"never: {what}"
        # a machine that is slow has better things to do than to answer
        time.sleep(max(0.3, waited / 10))


def sh(command):
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout.strip()


def parallel(jobs, at_a_time=None):
    """Runs all, at once or so many at a time. What failed is told together."""
    with concurrent.futures.ThreadPoolExecutor(at_a_time or len(jobs)) as pool:
        failed = [error for error in (future.exception() for future in [pool.submit(job) for job in jobs]) if error]
    if failed:
        texts = sorted({f"{type(error).__name__}: {error}"[:600] for error in failed})
        raise AssertionError(f"{len(failed)} of {len(jobs)} failed: " + "; ".join(texts)) from failed[0]
