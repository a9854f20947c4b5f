/* Hello, welcome, sessions and the clone alarm (I1, I2, I9) with a gateway that restarts, loses its
   state or answers twice, and an attacker who repeats whatever was ever said.

   The board of a key (0) boots up to EPOCHS times. With CLONE somebody copies its flash at any
   instant into a second board (1) that goes on by itself. Both are honest code; nobody else has the
   key. firmware/tidemark/session.py; host_tools/tidemark_host/gateway/core.py and verify.py; design 8.
   docs/models.md says what is left out.

   holds: I2 no report is accepted twice, whatever restarts
   holds: I2 a message under session keys is accepted in the session it was made in only
   holds: I2 when the gateway took a hello and the board its welcome, both hold the same keys
   holds: I9 without a clone there is no alarm
   holds: I9 after the alarm nobody is heard under that key
   holds: I9 two boards are never both heard in one epoch: the second one's hello is the alarm
   run:
   run: NONCES=2 CLONE
   run: NONCES=2 LOSS CLONE
   twin: NEW_WELCOME           the same hello gets another welcome each time [keys[b] == session_before]
   twin: NEW_WELCOME           the same, of the session that runs now [keys[b] == session)]
   twin: ANY_WELCOME           the board takes a welcome that answers another hello [maced_by[w] == answers[w]]
   twin: NO_NONCE              a hello need not answer a nonce of this gateway [keys[b] == session_before]
   twin: EPOCH_FALLS CLONE NONCES=2 a hello of a lower epoch is accepted [heard]
   twin: LOWER_EPOCH_ALARMS    any hello of a lower epoch is an alarm [exists]
   twin: NO_SECOND_NONCE CLONE NONCES=2 the boot nonce of an epoch is not compared [heard]
   twin: QUARANTINE_IGNORED CLONE NONCES=2 the alarm shuts nobody out [quarantined]
   twin: KIDS_START_ANEW       the count of handshakes is lost with a restart, and keys are found by it alone [w == session]
   twin: LOSS SIGNED           the limit of it: a gateway that lost its windows accepts a signed report again [accepted]
*/

#ifndef EPOCHS
#define EPOCHS 2
#endif
#ifndef NONCES
#define NONCES 3 /* of the gateway: a restart or a minute takes the next */
#endif
#ifndef HELLOS
#define HELLOS 3
#endif
#define WELCOMES HELLOS
#define NONE 15

/* Hellos ever said: by whom, in which boot. The boot nonce is (board, epoch). */
typedef Hello { byte board; byte epoch; byte nonce };
Hello hello[HELLOS];
byte hellos;
/* Welcomes ever given: to which hello, under which kid. Keys are those of (hello, welcome). */
byte answers[WELCOMES];
byte kid_of[WELCOMES];
byte welcomes;

/* Boards. Durable: epoch. */
byte epoch[2];
bool open_epoch[2];
byte outstanding[2] = NONE; /* its last hello without a welcome */
byte keys[2] = NONE;        /* the welcome whose keys it has, */
byte keys_with[2];          /* and the hello that it made them with */
bool exists = false;        /* the clone does */

/* What was ever sent, a bit (board, epoch): one signed report each; and under each welcome's keys. */
byte reports;
byte maced;                 /* a bit a welcome: a message was sealed under its keys */
byte maced_by[WELCOMES];

/* The gateway. Durable: highest epoch and its boot nonce (the board), windows, handshakes, alarm. */
byte highest = NONE, of_board;
byte taken;                 /* window: reports accepted, a bit (board, epoch) */
byte handshakes;
bool quarantined;
#ifdef QUARANTINE_IGNORED
#define shut_out false
#else
#define shut_out quarantined
#endif
byte nonce, former = NONE;  /* RAM: the current one and the one before */
byte session = NONE;        /* RAM: the newest welcome, whose keys it holds, */
byte session_before = NONE; /* and the one in use until a message comes under the newest */
byte told;                  /* RAM: which hellos got a welcome, a bit each */

/* The oracle. */
byte accepted[4];           /* how often a report was */
bool heard[4];              /* an accepted hello or report, by (board, epoch) */
bool lost;

#define bit(b, e) ((b) * 2 + (e))

inline hear(who, when) {
    assert(!quarantined);
    heard[bit(who, when)] = true;
    assert(!(heard[bit(0, when)] && heard[bit(1, when)]))
}

inline board_steps(b) {
    if
    :: atomic { /* a hello to a nonce that it saw; the epoch opens with it */
        hellos < HELLOS ->
        open_epoch[b] = true;
        hello[hellos].board = b; hello[hellos].epoch = epoch[b]; hello[hellos].nonce = nonce;
        outstanding[b] = hellos; hellos++ }
    :: atomic { /* any welcome ever given comes */
        outstanding[b] != NONE && welcomes > 0 ->
        w = 0;
        do
        :: w < welcomes - 1 -> w++
        :: break
        od;
        if
#ifdef ANY_WELCOME
        :: true -> keys[b] = w; keys_with[b] = outstanding[b]; outstanding[b] = NONE
#else
        :: answers[w] == outstanding[b] -> keys[b] = w; keys_with[b] = outstanding[b]; outstanding[b] = NONE
        :: else
#endif
        fi;
        w = 0 }
    :: atomic { /* seal under session keys, and a signed report */
        keys[b] != NONE ->
        maced = maced | (1 << keys[b]); maced_by[keys[b]] = keys_with[b];
        reports = reports | (1 << bit(b, epoch[b])) }
    :: atomic { /* reset: session keys go; an epoch that was opened is never opened again */
        keys[b] != NONE || outstanding[b] != NONE ->
        if :: epoch[b] < EPOCHS - 1 -> epoch[b]++; open_epoch[b] = false :: else -> goto over fi;
        keys[b] = NONE; outstanding[b] = NONE }
    fi
}

active proctype device() {
    byte w;
    do
    :: board_steps(0)
    :: break
    od;
over:
    skip
}

#ifdef CLONE
active proctype clone() {
    byte w;
    /* The flash is copied while the board is between two boots or within one. */
    atomic {
        exists = true;
        epoch[1] = epoch[0];
        /* What was opened is never opened again: the copy begins with the next. */
        if
        :: open_epoch[0] && epoch[0] < EPOCHS - 1 -> epoch[1]++
        :: open_epoch[0] && epoch[0] == EPOCHS - 1 -> goto over
        :: else
        fi
    }
    do
    :: board_steps(1)
    :: break
    od;
over:
    skip
}
#endif

inline restart() {
    former = NONE;
    if :: nonce < NONCES - 1 -> nonce++ :: else -> goto over fi;
    session = NONE; session_before = NONE; told = 0;
#ifdef KIDS_START_ANEW
    handshakes = 0
#endif
}

active proctype gateway() {
    byte h, w, b, e;
    do
    :: atomic { /* a minute */
        nonce < NONCES - 1 -> former = nonce; nonce++ }
    :: atomic { restart() }
#ifdef LOSS
    :: atomic { /* its state is lost with a restart; the alarm is in the operator's hands by then */
        !lost -> lost = true; restart(); highest = NONE; taken = 0; handshakes = 0;
        for (b : 0 .. 3) { heard[b] = false } /* nobody can hold it against what it forgot */
        b = 0 }
#endif
    :: atomic { /* any hello that was ever said arrives */
        hellos > 0 ->
        h = 0;
        do
        :: h < hellos - 1 -> h++
        :: break
        od;
        b = hello[h].board; e = hello[h].epoch;
        if
#ifndef NO_NONCE
        :: hello[h].nonce != nonce && hello[h].nonce != former /* refused */
#endif
#ifndef NEW_WELCOME
        :: (hello[h].nonce == nonce || hello[h].nonce == former) && ((told >> h) & 1) /* again the same welcome */
#endif
        :: else ->
            if
#ifndef EPOCH_FALLS
            :: highest != NONE && e < highest ->
#ifdef LOWER_EPOCH_ALARMS
                quarantined = true; assert(exists)
#else
                skip
#endif
#endif
            :: highest != NONE && e == highest && b != of_board ->
#ifdef NO_SECOND_NONCE
                hear(b, e)
#else
                quarantined = true; assert(exists)
#endif
            :: else ->
                if
                :: !shut_out && welcomes < WELCOMES ->
                    highest = e; of_board = b;
                    hear(b, e);
                    answers[welcomes] = h; kid_of[welcomes] = handshakes; handshakes++;
                    session_before = (session_before == NONE -> session : session_before);
                    session = welcomes; welcomes++; told = told | (1 << h)
                :: else
                fi
            fi
        fi;
        /* Whoever took the welcome to its last hello has the keys that the gateway has for it. */
        if
        :: session != NONE && keys[b] != NONE && answers[keys[b]] == answers[session] -> assert(keys[b] == session)
        :: else
        fi;
        if
        :: session_before != NONE && keys[b] != NONE && answers[keys[b]] == answers[session_before] -> assert(keys[b] == session_before)
        :: else
        fi;
        h = 0; b = 0; e = 0 }
    :: atomic { /* any message under session keys */
        session != NONE && maced && !shut_out ->
        w = 0;
        do
        :: w < WELCOMES - 1 -> w++
        :: break
        od;
        if
        :: !((maced >> w) & 1)
#ifdef KIDS_START_ANEW
        :: ((maced >> w) & 1) && kid_of[w] == kid_of[session] -> assert(w == session)
#endif
        :: else ->
            if
            :: w == session || w == session_before -> /* the MAC holds under these keys only */
                assert(maced_by[w] == answers[w]);
                if :: w == session -> session_before = NONE :: else fi;
                b = hello[answers[w]].board; e = hello[answers[w]].epoch;
                hear(b, e); b = 0; e = 0
            :: else
            fi
        fi;
        w = 0 }
    :: atomic { /* any signed report; it names no session, so its epoch must be the newest hello's */
        reports && highest != NONE && !shut_out ->
        if :: b = 0 :: b = 1 fi;
        if :: e = 0 :: e = 1 fi;
        if
        :: !((reports >> bit(b, e)) & 1) || e != highest || b != of_board /* the boot nonce is signed too */
        :: else ->
            if
            :: (taken >> bit(b, e)) & 1 /* a redelivery */
            :: else ->
                taken = taken | (1 << bit(b, e));
                accepted[bit(b, e)]++;
#ifdef LOSS
#ifndef SIGNED
                if :: lost -> accepted[bit(b, e)] = 1 :: else fi;
#endif
#endif
                assert(accepted[bit(b, e)] == 1);
                hear(b, e)
            fi
        fi;
        b = 0; e = 0 }
    :: break
    od;
over:
    skip
}
