/* Slots, trial, confirmation, rejection and floor (I3, I4, I5) under power cuts.

   One board with two slots, as firmware/tidemark/slots.py, stage0.py and updater.py drive them.
   The journal is taken at its word (tests/powercut searches that code): a put that is cut off
   leaves the old record or the new one, and until a record is affirmed each boot may read the
   other one of the two. Releases 1 to 3 exist; 1 is the factory's, the nature of the others is any.
   docs/models.md says what is left out.

   holds: I3 the running and the confirmed slot are never erased, and what runs is what was authorised
   holds: I3 at every instant a confirmed image is whole, whichever reading the journal gives
   holds: I4 nothing below the highest release ever confirmed is tried or confirmed
   holds: I3 a release that was reported as confirmed is never on trial again
   holds: I5 an unconfirmed image boots a bounded number of times before the former one is heard
   holds: I5 a release that was rejected is not tried again, and a healthy one is not rejected
   run:
   run: DECAY
   twin: ANY_TARGET       a download may take the confirmed slot [victim == firm.confirmed]
   twin: RUNNING_TARGET   a download may take the running slot [victim != running]
   twin: NO_DIGEST_CHECK DECAY  an image is run without a look at its digest [image[running]]
   twin: JUMP_FIRST       the trial boot is not journalled before the jump [streak]
   twin: STAGED_FIRST NO_DIGEST_CHECK  the slot is journalled as STAGED before its image is whole [image[running]]
   twin: CONFIRMED_FIRST  the slot is journalled as confirmed before its image is whole [image[firm.confirmed]]
   twin: CONFIRMED_FIRST  the same record, torn, may be read so [image[other.confirmed]]
   twin: FLOOR_IGNORED    an index below the floor is a candidate, and is tried [running) >= top]
   twin: FLOOR_IGNORED    the same, of a release that was reported as confirmed [running) > reported]
   twin: NO_AFFIRM        the boot record is relied upon as read [confirmed) >= reported]
   twin: NO_AFFIRM_REJECTED  the list of rejections is relied upon as read [known_bad]
   twin: FLAG_FIRST       the boot record says REJECTED before the list does, and the list is what counts [known_bad]
   twin: OUTAGE_REJECTS   an outage counts like a fault [nature]
*/

#define POWER_BOOTS 2 /* 16 on the board */
#define COUNTED_MAX 2 /* 3 on the board */
#define RELEASES 3
#define NONE 2

mtype = { Empty, Writing, Staged, Trial, Confirmed, Rejected };
mtype = { Good, Crash, Mute }; /* Mute: it runs, and its link does not */
mtype = { Ready, WaitCounted, WaitUncounted };
mtype = { PowerOn, Fault, Deliberate }; /* why a boot began */

typedef Boot { /* the journal's record `boot` */
    byte confirmed;
    mtype state[2];
    byte release[2];
    bool open;
    byte power_boots;
    byte counted;
    mtype waiting
};

Boot firm, other, ram; /* what a recovery reads at least; what it may read instead; RAM */
bool torn;             /* whether `other` is there */
byte list, list_other; /* the record `rejected`, a bit a release */
bool list_torn;
byte floor_mark, floor_other;
bool floor_torn;

byte image[2];         /* what a slot holds: a release, whole, or 0 */
byte running = NONE;
mtype nature[RELEASES + 1];
mtype cause = PowerOn;
byte offered = 1;      /* the newest release in the metadata that the board has seen */
bool cut;

/* The oracle, outside the board. */
byte top;              /* the highest release ever confirmed, by a record that is firm */
byte streak;           /* boots of an unconfirmed image of one release since the former one was heard */
byte reported;         /* the highest release that a hello called confirmed */
byte known_bad;        /* releases that a firm record called rejected, a bit each */

inline copy(to, from) {
    to.confirmed = from.confirmed;
    to.state[0] = from.state[0]; to.state[1] = from.state[1];
    to.release[0] = from.release[0]; to.release[1] = from.release[1];
    to.open = from.open; to.power_boots = from.power_boots;
    to.counted = from.counted; to.waiting = from.waiting
}

/* Journal the RAM's record. Everything behind it is skipped when the power fails. */
inline save() {
    if
    :: cut
    :: !cut -> cut = true                                /* before it */
    :: !cut -> cut = true; copy(other, ram); torn = true /* within it */
    :: !cut -> copy(firm, ram); torn = false;
        if
        :: firm.confirmed != NONE && firm.release[firm.confirmed] > top -> top = firm.release[firm.confirmed]
        :: else
        fi;
        if
        :: firm.state[0] == Rejected -> known_bad = known_bad | (1 << firm.release[0])
        :: else
        fi;
        if
        :: firm.state[1] == Rejected -> known_bad = known_bad | (1 << firm.release[1])
        :: else
        fi
    fi
}

inline save_list(value) {
    if
    :: cut
    :: !cut -> cut = true
    :: !cut -> cut = true; list_other = value; list_torn = true
    :: !cut -> list = value; list_torn = false
    fi
}

inline raise_floor() {
    if
    :: ram.confirmed != NONE && ram.release[ram.confirmed] > floor_mark ->
        if
        :: cut
        :: !cut -> cut = true
        :: !cut -> cut = true; floor_other = ram.release[ram.confirmed]; floor_torn = true
        :: !cut -> floor_mark = ram.release[ram.confirmed]; floor_torn = false
        fi
    :: else
    fi
}

/* Read what may be read, then make it firm; a cut within leaves both readings. */
inline recover() {
    if
    :: torn ->
        if
        :: true -> copy(ram, firm)
        :: true -> copy(ram, other); copy(other, firm); copy(firm, ram)
        fi;
#ifndef NO_AFFIRM
        if
        :: cut = true
        :: torn = false
        fi;
#endif
        if
        :: !torn && firm.confirmed != NONE && firm.release[firm.confirmed] > top -> top = firm.release[firm.confirmed]
        :: else
        fi
    :: else -> copy(ram, firm)
    fi;
    if
    :: list_torn ->
        if
        :: true
        :: true -> list = list ^ list_other; list_other = list ^ list_other; list = list ^ list_other
        fi;
#ifndef NO_AFFIRM_REJECTED
        if
        :: cut -> true
        :: cut = true
        :: !cut -> list_torn = false
        fi
#endif
    :: else
    fi;
    if
    :: floor_torn ->
        if
        :: true
        :: true -> floor_mark = floor_mark ^ floor_other; floor_other = floor_mark ^ floor_other; floor_mark = floor_mark ^ floor_other
        fi;
        if
        :: cut -> true
        :: cut = true
        :: !cut -> floor_torn = false
        fi
    :: else
    fi;
    raise_floor()
}

inline reset_trial() {
    ram.open = false; ram.power_boots = 0; ram.counted = 0; ram.waiting = Ready
}

#define release_of(s) ram.release[s]
#define is_listed(r) ((list >> r) & 1)
#define is_trial(s) (s != ram.confirmed && (ram.state[s] == Staged || ram.state[s] == Trial))
#define trial_slot (is_trial(0) -> 0 : (is_trial(1) -> 1 : NONE))
#ifdef FLOOR_IGNORED
#define below_floor(r) false
#else
#define below_floor(r) (r <= floor_mark)
#endif

inline reject(victim) {
#ifdef FLAG_FIRST
    ram.state[victim] = Rejected; reset_trial();
    save();
    save_list(list | (1 << release_of(victim)));
#else
    save_list(list | (1 << release_of(victim)));
    ram.state[victim] = Rejected; reset_trial();
    save();
#endif
    assert(cut || nature[release_of(victim)] != Good)
}

inline inconclusive(victim, why) {
    ram.waiting = why; ram.power_boots = 0; ram.open = false; ram.state[victim] = Staged;
    save()
}

inline erase(victim) {
    assert(victim != running);
    assert(!(victim == firm.confirmed) && !(torn && victim == other.confirmed));
    image[victim] = 0
}

/* How the last boot ended. */
inline resolve() {
    if
    :: trial_slot != NONE && ram.open ->
        s = trial_slot;
        if
        :: cause == Fault -> reject(s)
        :: else ->
            ram.power_boots++;
            if
            :: ram.power_boots > POWER_BOOTS -> inconclusive(s, WaitUncounted)
            :: else -> save()
            fi
        fi
    :: else
    fi
}

/* running = the slot to run, NONE for rescue. */
inline choose() {
    running = NONE;
    if
    :: trial_slot != NONE && ram.waiting == Ready ->
        s = trial_slot;
        if
        :: is_listed(release_of(s)) -> ram.state[s] = Rejected; reset_trial(); save()
        :: !is_listed(release_of(s)) && below_floor(release_of(s)) -> ram.state[s] = Empty; reset_trial(); save()
        :: else ->
            if
            :: !ram.open || ram.state[s] != Trial ->
                ram.state[s] = Trial; ram.open = true;
#ifndef JUMP_FIRST
                save()
#endif
            :: else
            fi;
            running = s
        fi
    :: else
    fi;
    if
    :: !cut && running == NONE -> running = ram.confirmed
    :: else
    fi
}

byte s, r;

active proctype board() {
    d_step {
        /* As provisioned. */
        image[0] = 1; nature[1] = Good; top = 1; floor_mark = 1;
        firm.confirmed = 0; firm.state[0] = Confirmed; firm.release[0] = 1;
        firm.state[1] = Empty; firm.waiting = Ready;
        copy(ram, firm);
    }
    r = 2;
    do
    :: r > RELEASES -> break
    :: else -> if :: nature[r] = Good :: nature[r] = Crash :: nature[r] = Mute fi; r++
    od;
    r = 0;
boot:
    atomic {
        cut = false; running = NONE; s = 0;
        /* The oracle: some slot must be bootable under each reading. */
        assert(firm.confirmed != NONE && image[firm.confirmed] == firm.release[firm.confirmed]);
        assert(!torn || image[other.confirmed] == other.release[other.confirmed]);
        recover();
        if :: cut -> cause = PowerOn; goto boot :: else fi;
#ifdef DECAY
        /* A slot under trial may lose its image; of a confirmed one the fetch again is left out. */
        if
        :: trial_slot != NONE && !torn -> image[trial_slot] = 0
        :: true
        fi;
#endif
        resolve();
        cause = PowerOn;
        if :: cut -> goto boot :: else fi;
        choose();
        if :: cut -> goto boot :: else fi;
#ifndef NO_DIGEST_CHECK
        if
        :: image[running] != release_of(running) && running != ram.confirmed ->
            s = running; running = NONE;
            ram.state[s] = Empty; reset_trial(); save();
            if :: cut -> goto boot :: else fi;
            running = ram.confirmed
        :: else
        fi;
#endif
        s = 0
    }
    atomic {
        /* The jump. */
        assert(image[running] == release_of(running) && image[running] != 0);
        assert(release_of(running) >= top);
        if
        :: running != ram.confirmed ->
            assert(!((known_bad >> release_of(running)) & 1));
            assert(release_of(running) > reported);
            streak++;
            assert(streak <= POWER_BOOTS + 1);
            goto trial
        :: else -> goto normal
        fi
    }
trial:
    atomic {
        if
        :: cause = PowerOn; goto boot                    /* the supply fails */
        :: cause = Deliberate; goto boot                 /* a REPL lease, a reset by hand */
        :: nature[image[running]] == Crash -> cause = Fault; goto boot
        :: nature[image[running]] == Good ->             /* the gateway is there, all checks hold */
            ram.state[running] = Confirmed; ram.confirmed = running; reset_trial();
            save();
            if :: cut -> goto boot :: else fi;
            streak = 0;
            raise_floor();
            if :: cut -> goto boot :: else fi;
            /* What the floor has passed is no longer kept. */
            r = 0;
            do
            :: r > RELEASES -> break
            :: else -> if :: r <= floor_mark -> list = list & ~(1 << r) :: else fi; r++
            od;
            r = 0;
            goto normal
        :: nature[image[running]] != Crash ->            /* an outage, or its own link is lost */
#ifdef OUTAGE_REJECTS
            reject(running);
#else
            inconclusive(running, WaitCounted);
#endif
            cause = Deliberate;
            goto boot
        fi
    }
normal:
    atomic {
        assert(release_of(ram.confirmed) >= reported);
        if
        :: release_of(ram.confirmed) > reported -> reported = release_of(ram.confirmed)
        :: else
        fi
    }
    atomic {
        if
        :: goto boot                                     /* the supply fails, or any reset */
        :: trial_slot != NONE && ram.waiting != Ready -> /* acknowledged */
            s = trial_slot;
            streak = 0;
            if
            :: ram.waiting == WaitCounted && nature[release_of(s)] != Good -> /* within ten minutes */
                ram.counted++;
                if
                :: ram.counted >= COUNTED_MAX -> reject(s)
                :: else -> ram.waiting = Ready; save()
                fi
            :: true -> ram.waiting = Ready; save()       /* later, or an outage that was one */
            fi;
            s = 0;
            cause = Deliberate;
            goto boot
        :: true -> goto download
        fi
    }
download:
    atomic {
        /* What the owner's metadata offers: an old copy of it is refused (TUF), so it only rises. */
        if
        :: r = offered
        :: offered < RELEASES -> offered++; r = offered
#ifdef FLOOR_IGNORED
        :: r = 1
        :: r = 2
#endif
        fi;
        s = (ram.confirmed == 0 -> 1 : 0);
#ifdef ANY_TARGET
        if :: s = 0 :: s = 1 fi;
#endif
#ifdef RUNNING_TARGET
        s = running;
#endif
        if
        :: below_floor(r) || is_listed(r) || r == release_of(ram.confirmed) -> r = 0; s = 0; goto normal
        :: is_trial(s) && release_of(s) == r -> r = 0; s = 0; goto normal
        :: else
        fi;
        streak = 0; /* how often the same release is fetched again is bounded elsewhere */
        ram.state[s] = Writing; ram.release[s] = r; reset_trial();
        save();
        if :: cut -> r = 0; goto boot :: else fi
    }
    atomic {
#ifdef STAGED_FIRST
        ram.state[s] = Staged;
        save();
        if :: cut -> r = 0; goto boot :: else fi;
        erase(s)
#else
        erase(s)
#endif
#ifdef CONFIRMED_FIRST
        ;
        ram.state[s] = Confirmed; ram.confirmed = s;
        save();
        if :: cut -> r = 0; goto boot :: else fi
#endif
    }
    if
    :: r = 0; goto boot                                  /* cut off half-way */
    :: true
    fi;
    atomic {
        image[s] = r; r = 0;
#ifndef STAGED_FIRST
        ram.state[s] = Staged;
        save();
        if :: cut -> goto boot :: else fi;
#endif
        s = 0;
        goto boot
    }
}
