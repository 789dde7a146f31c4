"""What tests in Python have in common: checks that are counted, and the line that they end with."""

passed = failed = 0


def check(what, holds, told=""):
    """Counts a check; of one that fails, prints what is `told`, which may be a function that says it."""
    global passed, failed
    if holds:
        passed += 1
        return
    failed += 1
    print(f"FAILED: {what}: {str(told() if callable(told) else told)[:2000]}", flush=True)


def finish():
    """Says how many passed and failed; the exit status. Where nothing was checked, nothing passed."""
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
