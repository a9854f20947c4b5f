/* The durable counter (I1) under power cuts, torn cells and an aged record.

   One board, one region of SECTORS * PER record slots, as firmware/tidemark/counter.py uses it.
   A program or an erase may be cut off at any time. What it touched is weak from then on: each
   look at it, not only each boot, may see it as before, as completed, or as junk, whatever is
   worst. Programming the same bytes again makes a weak record firm; other bytes leave it weak.
   docs/models.md says what is left out.

   holds: I1 no epoch is issued twice; as long as no record ages, each is above all before it
   run: AGING=0
   run: AGING=0 SECTORS=2 PER=1
   run: AGING=0 SECTORS=2 PER=3
   run: AGING=1 CUTS=1 SECTORS=4 LAST=12
   twin: ADDRESS_NOT_PURE  rule 1, a record's bytes differ from one attempt to the next [issued]
   twin: FIRST_BLANK_ENDS  rule 2, the scan stops at the first blank slot [issued]
   twin: JUNK_IS_FREE AGING=1 CUTS=1 SECTORS=4  rule 2, junk counts as unused [issued]
   twin: NO_AFFIRM         rule 3, the maximum is relied upon as read [issued]
   twin: NO_AFFIRM AGING=0  the same: an epoch is not above all before it [e > highest]
   twin: ERASE_IF_NEEDED   rule 4, a sector that reads blank is not erased [issued]
   twin: ISSUE_FIRST       rule 5, issued before the record is written and read back [issued]
   twin: STARTS_ANEW AGING=1 CUTS=1 SECTORS=2  a provisioned board without a record begins at 1 [issued]
   twin: AGING=1 CUTS=2 SECTORS=4 LAST=12  the limit of it: junk in the first slot of all sectors but one [issued]
*/

#ifndef SECTORS
#define SECTORS 3
#endif
#ifndef PER
#define PER 2
#endif
#define SLOTS (SECTORS * PER)
#ifndef AGING
#define AGING 0 /* records that may turn into junk by age */
#endif
#ifndef LAST
#define LAST 9 /* the ring is gone round once and a half */
#endif

/* What a look at a slot sees, besides an epoch from 1 on. */
#define BLANK 0
#define JUNK 255

/* How a slot really is. TORN: its program was cut off; FADING: its erase was; AGED: for ever junk. */
mtype = { Empty, Firm, Torn, Fading, Aged };

mtype cell[SLOTS] = Empty;
byte content[SLOTS]; /* the epoch whose record was programmed there, or begun */
byte aged;
#ifdef CUTS
byte cuts; /* power cuts so far; without CUTS there may be any number */
#define MAY_CUT cuts < CUTS
#define CUT cut = true; cuts++
#else
#define MAY_CUT true
#define CUT cut = true
#endif

/* The oracle, outside the board: which epochs were ever issued, and the highest of them. */
short issued;
byte highest;

/* Of one boot. */
byte found, epoch, home, at, seen, i, tries, later;
bool cut, over;

#define slot_of(e) ((e - 1) % SLOTS)

/* seen = one look at a slot. */
inline look(s) {
    if
    :: cell[s] == Empty -> seen = BLANK
    :: cell[s] == Firm -> seen = content[s]
    :: cell[s] == Aged -> seen = JUNK
    :: cell[s] == Torn || cell[s] == Fading -> seen = BLANK
    :: cell[s] == Torn || cell[s] == Fading -> seen = content[s]
    :: cell[s] == Torn || cell[s] == Fading -> seen = JUNK
    fi
}

/* Program the record of epoch e; cut = true if the power failed within. */
inline program(e) {
    if
    :: MAY_CUT -> CUT /* before anything happened */
    :: MAY_CUT -> /* within: over a firm record the same bytes change nothing */
        CUT;
        if
        :: cell[slot_of(e)] == Firm || cell[slot_of(e)] == Aged
        :: else -> cell[slot_of(e)] = Torn; content[slot_of(e)] = e
        fi
    :: true ->
        if
        :: cell[slot_of(e)] == Aged
        :: cell[slot_of(e)] == Torn || cell[slot_of(e)] == Fading ->
            /* Other bytes over weak ones read back, and leave them weak. */
#ifndef ADDRESS_NOT_PURE
            if
            :: content[slot_of(e)] == e -> cell[slot_of(e)] = Firm
            :: else
            fi;
#endif
            content[slot_of(e)] = e
        :: else -> cell[slot_of(e)] = Firm; content[slot_of(e)] = e
        fi
    fi
}

/* Erase sector n. */
inline erase(n) {
    if
    :: MAY_CUT -> CUT
    :: MAY_CUT ->
        CUT;
        for (i : n * PER .. n * PER + PER - 1) {
            if
            :: cell[i] == Empty
            :: else -> cell[i] = Fading
            fi
        }
    :: true ->
        for (i : n * PER .. n * PER + PER - 1) {
            cell[i] = Empty; content[i] = 0
        }
    fi
}

/* found = the greatest epoch of a full scan. */
inline recover() {
    found = 0;
    over = false;
    for (i : 0 .. SLOTS - 1) {
        look(i);
        if
        :: over || seen == JUNK
#ifdef FIRST_BLANK_ENDS
        :: !over && seen == BLANK -> over = (i > 0)
#else
        :: !over && seen == BLANK
#endif
        :: else -> if :: seen > found -> found = seen :: else fi
        fi
    }
}

/* epoch = the next one that may be tried: past used slots of a sector in use. */
inline after(e) {
    epoch = e + 1;
    do
    :: slot_of(epoch) % PER == 0 -> break
    :: else ->
        look(slot_of(epoch));
        if
        :: seen == BLANK -> break
#ifdef JUNK_IS_FREE
        :: seen == JUNK -> break
#endif
        :: else -> epoch++
        fi
    od
}

/* Where epoch would begin a sector on junk: the first one of a later sector, if there is one. */
inline past_junk() {
    later = epoch;
    tries = 0;
    do
    :: tries == SECTORS -> break
    :: else ->
        tries++;
        if
        :: slot_of(later) % PER != 0 -> epoch = later; break
        :: slot_of(later) % PER == 0 && slot_of(later) / PER == home -> break
        :: else ->
            look(slot_of(later));
            if
            :: seen == JUNK -> later = later + PER
            :: else -> epoch = later; break
            fi
        fi
    od
}

inline issue(e) {
    assert(!(issued & (1 << e)));
    issued = issued | (1 << e);
#if AGING == 0
    assert(e > highest);
#endif
    highest = (e > highest -> e : highest)
}

active proctype board() {
boot:
    atomic {
        cut = false;
        /* One record may age between two boots: issued once, junk from now on. */
        if
        :: aged < AGING ->
            i = 0;
            do
            :: i < SLOTS -> i++
            :: i < SLOTS && cell[i] == Firm -> cell[i] = Aged; aged++; break
            :: i == SLOTS -> break
            od
        :: true
        fi;
        recover();
    }
    atomic {
#ifndef STARTS_ANEW
        /* A board that has spoken and finds no record has lost its state: it refuses (stage 0). */
        if :: found == 0 && issued != 0 -> goto done :: else fi;
#endif
        home = SECTORS; /* none */
        if
        :: found > 0 ->
            home = slot_of(found) / PER;
#ifndef NO_AFFIRM
            program(found);
            if :: cut -> goto boot :: else fi
#endif
        :: else
        fi;
        after(found);
#ifndef JUNK_IS_FREE
        past_junk();
#endif
        seen = 0; tries = 0; later = 0; i = 0
    }
    atomic {
        if :: epoch > LAST -> goto done :: else fi;
#ifdef ISSUE_FIRST
        issue(epoch);
#endif
        if
        :: slot_of(epoch) % PER == 0 ->
            if :: slot_of(epoch) / PER == home -> goto done :: else fi; /* worn: refuses */
#ifdef ERASE_IF_NEEDED
            over = true;
            for (i : slot_of(epoch) .. slot_of(epoch) + PER - 1) {
                look(i);
                if :: seen != BLANK -> over = false :: else fi
            }
            if :: !over -> erase(slot_of(epoch) / PER) :: else fi;
#else
            erase(slot_of(epoch) / PER);
#endif
            if :: cut -> goto boot :: else fi
        :: else
        fi
    }
    atomic {
        program(epoch);
        if :: cut -> goto boot :: else fi;
        if :: cell[slot_of(epoch)] == Aged -> goto done :: else fi; /* does not read back: refuses */
#ifndef ISSUE_FIRST
        issue(epoch);
#endif
        found = 0; epoch = 0; home = 0; i = 0;
        goto boot
    }
done:
    over = false
}
