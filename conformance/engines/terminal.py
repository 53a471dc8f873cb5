#!/usr/bin/python3
"""terminal.py [--size ROWSxCOLUMNS] [--timeout SEC] COMMAND... -- WORD...

Runs COMMAND on a pseudo-terminal and does the WORDs in turn: `=TEXT` waits until TEXT is in the output,
`+TEXT` types it (with \\r, \\n, \\x03 … understood), `@ROWSxCOLUMNS` resizes the window, `.` waits for the end.
The output goes to stdout; exits as COMMAND did, or with 99 when a TEXT never came.
"""
import fcntl, os, pty, select, signal, struct, sys, termios, time


def resize(fd, size):
    rows, columns = (int(number) for number in size.split("x"))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def main():
    args, size, patience = sys.argv[1:], "24x80", 60.0
    while args[0].startswith("--"):
        if args[0] == "--size":
            size = args[1]
        elif args[0] == "--timeout":
            patience = float(args[1])
        args = args[2:]
    # The last "--" separates: the command may have one of its own.
    at = len(args) - 1 - args[::-1].index("--")
    command, words = args[:at], args[at + 1:]
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    resize(fd, size)
    seen = b""

    def pump(until):
        """Reads until `until` is seen (True), the terminal closes or the time is over."""
        nonlocal seen
        end = time.monotonic() + patience
        while until is None or until not in seen:
            if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
                return False
            try:
                data = os.read(fd, 4096)
            except OSError:
                return False
            if not data:
                return False
            os.write(1, data)
            seen += data
        seen = seen[seen.index(until) + len(until):]
        return True

    for word in words:
        if word.startswith("="):
            if not pump(word[1:].encode()):
                print(f"\nnever seen: {word[1:]!r}", file=sys.stderr)
                os.kill(pid, signal.SIGKILL)
                sys.exit(99)
        elif word.startswith("+"):
            # podman takes keys for its own only when they come one by one
            time.sleep(0.3)
            os.write(fd, word[1:].encode().decode("unicode_escape").encode("latin-1"))
        elif word.startswith("@"):
            resize(fd, word[1:])
            os.kill(pid, signal.SIGWINCH)
    pump(None)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            sys.exit(os.waitstatus_to_exitcode(status) & 255)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    print("\ndid not end", file=sys.stderr)
    sys.exit(99)


main()
