/* A command takes effect at most once and only while fresh (I6), under loss, duplication,
   reordering, resets and power cuts; a retry gets the recorded result.

   As design 9, "Commands", describes it; the firmware takes no commands yet, so this model leads
   the code. One sender with numbers 1 to COMMANDS; the network keeps each (number, boot) that was
   ever sent and may hand it over at any time, any number of times. The board's journal keeps a mark
   and, of the latest KEPT commands, intent and result; a put that is cut off reads as the old or the
   new record until it is affirmed. docs/models.md says what is left out.

   holds: I6 a command has one effect at most; one declared idempotent may be run again
   holds: I6 an effect happens only in the boot that the command names
   holds: I6 what was called interrupted does not run later, and what was called done stays so
   holds: I6 "done" is said only of an effect that happened, "unknown" and "refused" only of one that did not begin
   run:
   run: COMMANDS=3 KEPT=1 BOOTS=2
   twin: EFFECT_FIRST      the effect comes before its intent is durable [effects[n] == 1]
   twin: RESULT_FIRST      the result is journalled before the effect [effects[n] >= 1]
   twin: NO_BOOT_NONCE     the command is not bound to a boot [b == boot]
   twin: MARK_IN_RAM       the high mark is lost with a reset [effects[n] == 1]
   twin: INTERRUPTED_AGAIN an intent without a result is run again though it is not idempotent [effects[n] == 1]
   twin: UNKNOWN_RUNS      a number at or below the mark without a record is run [effects[n] == 1]
   twin: NO_AFFIRM         the journal is relied upon as read [effects[n] == 1]
   twin: NO_AFFIRM         the same, of a result that was told already [said_done]
*/

#ifndef COMMANDS
#define COMMANDS 2
#endif
#ifndef KEPT
#define KEPT 2
#endif
#ifndef BOOTS
#define BOOTS 3
#endif
#define IDEMPOTENT 2 /* the number of the one that is declared so */

#define NOTHING 0
#define INTENT 1
#define DONE 2

/* The network: which (number, boot) were ever sent, a bit a boot. */
byte sent[COMMANDS + 1];

/* The journal: mark, and what is known of each number. One record may be torn. */
byte mark;
byte record[COMMANDS + 1];
byte torn;       /* the number whose last record is torn, 0: none */
byte before;     /* what it may read instead, and the mark with it */
byte mark_before;

byte boot;
/* The oracle: effects, and what was said of a number so far, a bit each. */
byte said_done, said_interrupted;
byte effects[COMMANDS + 1];
bool cut;

/* Journal `value` for number n, and the mark with it: one record. */
inline put(n, value) {
    if
    :: cut = true
    :: cut = true; before = record[n]; mark_before = mark; torn = n;
        record[n] = value; mark = (n > mark -> n : mark)
    :: record[n] = value; mark = (n > mark -> n : mark); torn = 0;
        if :: n > KEPT -> record[n - KEPT] = NOTHING :: else fi
    fi
}

inline effect(n) {
    effects[n]++;
    assert(n == IDEMPOTENT || (effects[n] == 1 && !((said_interrupted >> n) & 1)))
}

active proctype sender() {
    byte n;
    do
    :: atomic { /* a new command, or a retry; it names the boot that the sender knows of */
        n = 1;
        do
        :: n < COMMANDS -> n++
        :: break
        od;
        sent[n] = sent[n] | (1 << boot); n = 0 }
    :: break
    od
}

active proctype board() {
    byte n, b;
start:
    atomic {
        cut = false;
        if
        :: torn ->
            if
            :: true
            :: true -> /* the other reading */
                record[torn] = record[torn] ^ before; before = record[torn] ^ before; record[torn] = record[torn] ^ before;
                mark = mark ^ mark_before; mark_before = mark ^ mark_before; mark = mark ^ mark_before
            fi;
#ifndef NO_AFFIRM
            if
            :: boot < BOOTS - 1 -> boot++; goto start /* a cut within the affirmation */
            :: torn = 0; before = 0; mark_before = 0
            fi
#endif
        :: else
        fi
    }
    do
    :: atomic { /* any command that was ever sent arrives */
        n = 1;
        do
        :: n < COMMANDS -> n++
        :: break
        od;
        b = 0;
        do
        :: b < BOOTS - 1 -> b++
        :: break
        od;
        if
        :: !((sent[n] >> b) & 1)
#ifndef NO_BOOT_NONCE
        :: ((sent[n] >> b) & 1) && b != boot /* of another boot: refused, nothing is written */
#endif
        :: else ->
            if
            :: record[n] == DONE -> /* the recorded result */
                assert(effects[n] >= 1);
                said_done = said_done | (1 << n)
            :: record[n] == INTENT && n <= mark ->
                if
#ifndef INTERRUPTED_AGAIN
                :: n != IDEMPOTENT -> /* "interrupted": it may have happened, or not */
                    assert(!((said_done >> n) & 1));
                    said_interrupted = said_interrupted | (1 << n)
#endif
                :: else -> assert(b == boot); effect(n); put(n, DONE)
                fi
            :: record[n] == NOTHING && n <= mark ->
#ifdef UNKNOWN_RUNS
                effect(n); put(n, DONE)
#else
                true /* "unknown", never run */
#endif
            :: else ->
                if
                :: true /* refused by policy or rate: nothing is written, a retry may pass */
                :: true ->
#ifdef EFFECT_FIRST
                    assert(b == boot);
                    effect(n);
                    put(n, DONE)
#else
                    put(n, INTENT);
                    if
                    :: !cut ->
                        assert(b == boot);
#ifdef RESULT_FIRST
                        put(n, DONE);
                        if :: !cut -> effect(n) :: else fi
#else
                        if
                        :: cut = true /* between intent and effect */
                        :: effect(n); put(n, DONE)
                        fi
#endif
                    :: else
                    fi
#endif
                fi
            fi
        fi;
        n = 0; b = 0;
        if
        :: cut && boot < BOOTS - 1 -> boot++;
#ifdef MARK_IN_RAM
            mark = 0; for (n : 1 .. COMMANDS) { record[n] = NOTHING }; n = 0;
#endif
            goto start
        :: cut && boot == BOOTS - 1 -> goto end
        :: !cut
        fi
        }
    :: atomic { /* any reset between two commands */
        boot < BOOTS - 1 -> boot++;
#ifdef MARK_IN_RAM
        mark = 0; for (n : 1 .. COMMANDS) { record[n] = NOTHING }; n = 0;
#endif
        goto start }
    :: break
    od;
end:
    cut = false
}
