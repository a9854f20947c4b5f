# Stage 0: from reset to a running image. Frozen; what it does before the hand-over decides whether
# a board comes back.

import sys

from tidemark import image, reasons, settings, slots
from tidemark.base import Base, BaseFault
from tidemark.compat import sleep_ms
from tidemark.errors import ImageError, SlotError, StateError, TidemarkError

_RUNTIME = "runtime"  # the reason and marker of a boot that another runtime is to judge

base = None  # the Base of this boot: made by `boot`, used by `run`, and at hand in the REPL


def boot():
    """Called by _boot.py: arms watchdog and boot lease, recovers and affirms the state, mounts
    littlefs.

    Nothing here may end in an immediate reset: whatever fails leaves `base.fault` for `run`, which
    goes to rescue under a lease. A boot that runs no main.py (raw REPL) keeps the lease of a REPL.
    """
    import tidemark_board
    from tidemark import port

    platform = port.select()
    _begin(platform, tidemark_board)
    _mount_files(base)
    platform.listen()


def _begin(platform, board):
    """Sets `base`. Raises whatever a base that can't be made raises; then the lease is armed."""
    global base
    from tidemark.supervisor import Supervisor

    supervisor = Supervisor(platform)
    supervisor.start(board.WATCHDOG_MS, board.LEASE_REPL_MS)
    # Only now: whatever is wrong from here on, the lease ends and the board tries again. A boot
    # that runs no main.py belongs to a person, however it ends; `run` takes this back.
    word = "lease"
    first, marked = _is_first(platform), reasons.decode(platform.marker())
    if marked == _RUNTIME or (first and marked != "restore"):
        # A runtime's first boot, or the one after it: nobody waits on its console. Should this
        # base fail or hang, the former runtime comes back and rejects the pair.
        word = _RUNTIME
        supervisor.lease(board.LEASE_BOOT_MS, word)
    base = Base(platform, board, supervisor)
    platform.set_marker(reasons.encode(word))
    try:
        base.recover()
    except TidemarkError as error:
        base.fault = error
    except Exception as error:  # a record of our own that does not mean what it should
        base.fault = StateError("state-unreadable", type(error).__name__)
    if base.runtimes:
        base.reason = base.runtimes.told(first, base.cause, base.reason)
        base.arrived = base.runtimes.has_arrived(base.reason)


def _is_first(platform):
    """Whether this is the one boot that the bootloader grants a runtime that was chosen: from NEW
    to PENDING it goes once. A soft reset is no boot of its."""
    try:
        found = platform.runtimes()
        if not found or platform.reset_cause() == "soft":
            return False
        from tidemark.runtimes import is_pending

        return is_pending(found)
    except TidemarkError:
        return False  # whatever it is, it stops `Base` as well
    except Exception:  # a base without its parts never was confirmed
        return True


def _mount_files(base):
    """Mounts the littlefs of files that may be lost at /; formats it when it does not mount, does
    without when that fails, and says so."""
    import vfs

    from tidemark.flash import BlockDevice

    device = BlockDevice(base.regions["vfs"])
    try:
        vfs.umount("/")
    except OSError:
        pass  # nothing was mounted by the platform
    try:
        vfs.mount(vfs.VfsLfs2(device, progsize=base.board.PAGE), "/")
        return
    except OSError:
        pass
    try:
        vfs.VfsLfs2.mkfs(device, progsize=base.board.PAGE)
        vfs.mount(vfs.VfsLfs2(device, progsize=base.board.PAGE), "/")
        base.record("vfs-format", "")
    except OSError:
        # A region that is worn out: what needs files fails by itself, the boot goes on.
        base.record("vfs-lost", "")


def run():
    """Called by main.py: picks the slot, journals a trial boot, checks the digest, mounts, runs.
    Returns to the REPL only for a board that waits for provisioning or for a person who pressed
    Ctrl-C."""
    if base.unprovisioned:
        if base.reason == _RUNTIME and base.runtimes and base.runtimes.is_confirmed:
            _leave_to_person()  # the runtime that it told of is gone again
        print("tidemark: not provisioned; waits on this console")
        return
    if not base.arrived:
        base.port.set_marker(0)
        # From here on somebody must take over soon: the application's first health mark ends this
        # lease. In a runtime's first boot the lease and marker of `_begin` do until then.
        base.supervisor.lease(base.board.LEASE_BOOT_MS, "rescue")
    try:
        slot = _choose()
        if slot != slots.NONE:
            _run_image(slot)
        else:
            _run_rescue()
    except KeyboardInterrupt:
        _leave_to_person()
        base.record("repl", "ctrl-c")
        seconds = base.board.LEASE_REPL_MS // 1000
        print("tidemark: stopped from the console; the board resets in %d s" % seconds)


def _leave_to_person():
    base.tell("lease")
    base.port.set_marker(reasons.encode("lease"))
    base.supervisor.lease(base.board.LEASE_REPL_MS, "lease")


def _choose():
    """The slot to run, or NONE for rescue."""
    if base.fault or base.safe:
        base.mode = "safe" if base.safe else "rescue"
        base.why = base.fault.code if base.fault else "state-lost"
        return slots.NONE
    try:
        if base.runtimes:
            base.record_all(base.runtimes.settle(base.slots.confirmed_release))
        # The boot of a trial goes on in the candidate. A loss of power in between counts: an entry
        # whose write it cut off may be granted more than once.
        if not base.arrived or base.cause in reasons.POWER:
            _resolve()
        while True:
            slot, why = base.slots.choose()
            # What this choice ended, or what the last boot ended and could not tell any more.
            base.record_all(base.slots.untold())
            if slot == slots.NONE:
                base.mode, base.why = "rescue", why
                return slot
            release = base.slots.release(slot)
            try:
                image.check(base.regions["slot_a" if slot == 0 else "slot_b"], release)
            except ImageError as error:
                confirmed = slot == base.slots.confirmed
                base.record_all(base.slots.bad_image(slot))
                if confirmed:
                    base.mode, base.why = "rescue", error.code
                    return slots.NONE
                continue
            if base.runtimes and not _enter_runtime(release):
                continue
            base.mode = "trial" if why == "trial" else "normal"
            return slot
    except TidemarkError as error:
        base.mode, base.why = "rescue", error.code
        return slots.NONE
    except Exception as error:  # a record of our own that does not mean what it should
        base.mode, base.why = "rescue", type(error).__name__
        return slots.NONE


def _resolve():
    reason = "" if base.arrived else base.reason
    if base.runtimes:
        word = base.runtimes.came_back(base.cause, reason)
        if word is not None:
            # Another runtime ran last, with another application: an end that it could tell is in
            # the journal, and nothing of it counts against what is confirmed.
            if not base.slots.trial_open:
                return
            reason = word
    base.record_all(base.slots.resolve(base.cause, reason))


def _enter_runtime(release):
    """Whether `release` may run now. Does not return when another runtime is to run it; raises
    SlotError "runtime-lost"."""
    try:
        reason = base.runtimes.enter(release, base.reason)
    except ImageError:
        base.record("image-digest", "runtime")
        base.record_all(base.slots.bad_image(base.slots.running))
        # Not before: an application without candidate runs on the runtime that is confirmed.
        base.runtimes.drop()
        return False
    except (SlotError, StateError) as error:
        if error.code == "runtime-lost" or not base.slots.in_trial:
            raise
        # The release's runtime can't run here: its trial is over.
        base.refuse(error, "trial")
        base.record_all(base.slots.fault("runtime"))
        if base.runtimes.on_candidate:
            base.reset("rollback")
        return False
    if reason:
        base.reset(reason)
    return True


def _hand_over():
    """What ends this boot from here on is the image's doing, a boot lease that runs out its missed
    deadline, not a forgotten console."""
    base.tell("")
    base.port.set_marker(0)
    base.supervisor.lease(base.board.LEASE_BOOT_MS, "deadline")


def _run_image(slot):
    release = base.slots.release(slot)
    base.prepare_radio()
    _hand_over()
    what = ("ab"[slot], release.index, release.version, base.mode)
    print("tidemark: slot %s, release %d (%s), %s" % what)
    try:
        base.slots.mounted = slot
        image.mount(base.regions["slot_a" if slot == 0 else "slot_b"], release)
        sys.path[:] = [".frozen", image.MOUNT_POINT]
        from agent import app

        base.settings = settings.load(app)
        if not base.connect():
            raise BaseFault("no settings")
        base.launch(app)
        base.supervisor.run(sleep_ms)
    except KeyboardInterrupt:
        raise
    except BaseFault:
        # In a trial this leaves it open, as a lost supply does: the image was not shown at fault.
        base.mode, base.why = "rescue", "base-fault"
        sys.path[:] = [".frozen"]  # the base alone
        _run_rescue()
    except (SystemExit, Exception) as error:
        # The one broad catch of the application: whatever an image does ends here, as evidence.
        sys.print_exception(error) if hasattr(sys, "print_exception") else None
        base.crashed(error)


def _leave_runtime():
    """A runtime that is not confirmed has no rescue: nothing could be installed from there. Does
    not return while the former one can be had.

    Otadata is asked before the journal, which may be what can't be read.
    """
    runtimes = base.runtimes
    if not runtimes or base.reason == "restore" or runtimes.is_confirmed:
        return  # after a restore this is what was to come back: it is not sent away again
    if runtimes.is_pending:
        # The bootloader goes back by itself. If `reset` fails, too, this lease ends the boot.
        base.supervisor.lease(base.board.LEASE_BOOT_MS, _RUNTIME)
        base.reset(_RUNTIME)
    try:
        word = runtimes.restore(base.reason)
    except TidemarkError as error:
        base.record("rescue-fault", error.code)
        return
    base.reset(word)


def _run_rescue():
    """The base alone: joins the network and takes an update through the same verified path."""
    print("tidemark: %s (%s)" % (base.mode, base.why))
    _leave_runtime()
    base.prepare_radio()
    base.port.set_marker(0)
    base.supervisor.lease(base.board.LEASE_BOOT_MS, "rescue")
    base.slots.running = slots.NONE
    base.record("rescue", base.why)
    try:
        base.settings = settings.load(None)
        if base.connect():
            base.launch(None)
        else:
            # Nothing to say hello with: a person must come, so the lease is a person's.
            base.supervisor.lease(base.board.LEASE_REPL_MS, "lease")
        base.supervisor.run(sleep_ms)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # stage 0 never resets at once: the lease gives time to look
        sys.print_exception(error) if hasattr(sys, "print_exception") else None
        base.record("rescue-fault", type(error).__name__)
        base.supervisor.lease(base.board.LEASE_BOOT_MS, "rescue")

