/* Readings go upstream exactly once, reports have one effect (I2), across loss, duplication,
   reordering, forgeries, and resets of the board and of the gateway at any time.

   The network keeps whatever was ever sent and may hand it over at any time, any number of times,
   or never. The board: firmware/agent/telemetry.py over outbox.py and session.py. The gateway:
   host_tools/tidemark_host/gateway/core.py over store.py. Design 9, "Order of work at a receiver"
   and "Outbox". docs/models.md says what is left out.

   holds: I2 no reading is inserted upstream twice
   holds: I2 a reading leaves the outbox only when upstream has it
   holds: I2 a report has one effect at most
   run:
   run: SESSIONS=3
   twin: NO_READING_WINDOW   the gateway knows counters, not the ids of readings [upstream[what - 1] == 1]
   twin: TWO_TRANSACTIONS    the id is marked in one transaction, the insert is another [upstream[in_flight[q] - 1] == 1]
   twin: ACK_FIRST           acknowledged before the transaction is committed [upstream[in_flight[q] - 1] == 1]
   twin: SENT_IS_DONE        the board drops a reading once the broker has it [upstream[i] == 1]
   twin: WINDOW_IN_RAM       the replay window is lost with the gateway's restart [effects[m] == 1]
   twin: WINDOW_BEFORE_MAC   the window is updated before the message is known to be authentic [upstream[in_flight[q] - 1] == 1]
   twin: LOST_EPOCH          a boot of the board uses an epoch again [upstream[in_flight[q] - 1] == 1]
*/

#ifndef EPOCHS
#define EPOCHS 2
#endif
#ifndef SEQS
#define SEQS 2
#endif
#define READINGS 2
#ifndef SESSIONS
#define SESSIONS 2
#endif
#define REPORT 7 /* in place of a reading's index */
#define MESSAGES (EPOCHS * SEQS)
#define at(e, q) ((e) * SEQS + (q))

/* What was ever sent up under a counter: 0 nothing, else 1 + index, or REPORT; and its session. */
byte sent[MESSAGES];
byte sent_under[MESSAGES];
/* Acknowledgements ever sent down, a bit a counter, by session. */
short acks[SESSIONS];

/* The board. Durable: epoch, outbox. */
byte epoch;
byte outbox = (1 << READINGS) - 1; /* readings that wait */
byte seq, session = SESSIONS;      /* RAM; SESSIONS: none */
byte in_flight[SEQS];              /* RAM: 1 + index sent under this seq, of this epoch and session */

/* The gateway. Durable: window, ids, upstream. RAM: session. */
short window;
byte ids;
byte upstream[READINGS];
byte effects[MESSAGES];            /* of reports */
byte gateway_session = SESSIONS;
byte sessions;                     /* handshakes so far */

active proctype board() {
    byte i, q;
    do
    :: atomic { /* a hello and its welcome: a session both know (hello.pml) */
        sessions < SESSIONS ->
        session = sessions; gateway_session = sessions; sessions++;
        for (q : 0 .. SEQS - 1) { in_flight[q] = 0 }
        q = 0 }
    :: atomic { /* seal and publish a waiting reading; it may be under way already */
        session < SESSIONS && seq < SEQS ->
        if
        :: (outbox & 1) -> i = 0
        :: (outbox & 2) -> i = 1
        :: else -> i = REPORT
        fi;
        if
        :: i == REPORT -> sent[at(epoch, seq)] = REPORT
        :: else ->
            sent[at(epoch, seq)] = 1 + i;
            in_flight[seq] = 1 + i;
#ifdef SENT_IS_DONE
            assert(upstream[i] == 1);
            outbox = outbox & ~(1 << i)
#endif
        fi;
        sent_under[at(epoch, seq)] = session;
        seq++; i = 0 }
    :: atomic { /* report instead of a reading */
        session < SESSIONS && seq < SEQS ->
        sent[at(epoch, seq)] = REPORT; sent_under[at(epoch, seq)] = session; seq++ }
    :: atomic { /* an acknowledgement comes, early, late, again */
        session < SESSIONS ->
        q = 0;
        do
        :: q < SEQS - 1 -> q++
        :: break
        od;
        if
        :: in_flight[q] && ((acks[session] >> at(epoch, q)) & 1) ->
            assert(upstream[in_flight[q] - 1] == 1);
            if
            :: outbox = outbox & ~(1 << (in_flight[q] - 1)); in_flight[q] = 0
            :: in_flight[q] = 0 /* the power failed within the mark: it still waits */
            fi
        :: else
        fi;
        q = 0 }
    :: atomic { /* reset: what is in RAM goes */
        epoch < EPOCHS - 1 ->
#ifdef LOST_EPOCH
        if
        :: epoch++
        :: for (q : 0 .. SEQS - 1) { sent[at(epoch, q)] = 0 } /* the same counters, other messages */
        fi;
#else
        epoch++;
#endif
        seq = 0; session = SESSIONS;
        for (q : 0 .. SEQS - 1) { in_flight[q] = 0 }
        q = 0 }
    :: break
    od
}

active proctype gateway() {
    byte m, what;
    do
    :: atomic { /* restart */
        gateway_session != SESSIONS -> gateway_session = SESSIONS;
#ifdef WINDOW_IN_RAM
        window = 0
#endif
        }
    :: atomic { /* any message that was ever sent arrives */
        m = 0;
        do
        :: m < MESSAGES - 1 -> m++
        :: break
        od;
        what = sent[m];
#ifdef WINDOW_BEFORE_MAC
        if /* a forgery under this counter */
        :: window = window | (1 << m); m = 0; what = 0
        :: true
        fi;
#endif
        if
        :: what == 0 || (what != REPORT && sent_under[m] != gateway_session) /* no such keys */
        :: what != 0 && (what == REPORT || sent_under[m] == gateway_session) ->
            if
            :: (window >> m) & 1 /* a redelivery: acknowledged, no effect */
            :: else ->
#ifdef ACK_FIRST
                if
                :: what != REPORT && gateway_session < SESSIONS ->
                    acks[gateway_session] = acks[gateway_session] | (1 << m)
                :: else
                fi;
                if /* the gateway fails in between */
                :: gateway_session = SESSIONS; m = 0; what = 0; goto next
                :: true
                fi;
#endif
                window = window | (1 << m);
                if
                :: what == REPORT -> effects[m]++; assert(effects[m] == 1)
                :: else ->
                    if
#ifndef NO_READING_WINDOW
                    :: (ids >> (what - 1)) & 1
#endif
                    :: else ->
                        ids = ids | (1 << (what - 1));
#ifdef TWO_TRANSACTIONS
                        if
                        :: gateway_session = SESSIONS; m = 0; what = 0; goto next
                        :: true
                        fi;
#endif
                        upstream[what - 1]++;
                        assert(upstream[what - 1] == 1)
                    fi
                fi
            fi;
            if
            :: gateway_session < SESSIONS -> acks[gateway_session] = acks[gateway_session] | (1 << m)
            :: else
            fi
        fi;
next:
        m = 0; what = 0 }
    :: break
    od
}
