-- One file of a gateway's state. What a device was told was accepted is in here, committed.
CREATE TABLE IF NOT EXISTS devices (
    id          TEXT PRIMARY KEY,
    handshakes  INTEGER NOT NULL DEFAULT 0,
    quarantined REAL,
    cleared     INTEGER NOT NULL DEFAULT 0,
    reason      TEXT,
    claims      TEXT NOT NULL DEFAULT '{}',
    claims_at   REAL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS epochs (
    device     TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    boot_nonce BLOB NOT NULL,
    PRIMARY KEY (device, epoch)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS windows (
    device TEXT NOT NULL,
    epoch  INTEGER NOT NULL,
    space  INTEGER NOT NULL,
    data   BLOB NOT NULL,
    PRIMARY KEY (device, epoch, space)
);

CREATE TABLE IF NOT EXISTS readings (
    device TEXT NOT NULL,
    epoch  INTEGER NOT NULL,
    data   BLOB NOT NULL,
    PRIMARY KEY (device, epoch)
);

CREATE TABLE IF NOT EXISTS upstream (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    device    TEXT NOT NULL,
    kind      TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    idx       INTEGER NOT NULL,
    body      TEXT NOT NULL,
    delivered REAL
);
CREATE INDEX IF NOT EXISTS upstream_waiting ON upstream (id) WHERE delivered IS NULL;

CREATE TABLE IF NOT EXISTS counts (
    device TEXT NOT NULL,
    code   TEXT NOT NULL,
    count  INTEGER NOT NULL,
    last   REAL NOT NULL,
    PRIMARY KEY (device, code)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS events (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    kind   TEXT NOT NULL,
    detail TEXT NOT NULL,
    count  INTEGER NOT NULL DEFAULT 1,
    first  REAL NOT NULL,
    last   REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS events_device ON events (device, kind, id);

CREATE TABLE IF NOT EXISTS evidence (
    device  TEXT NOT NULL,
    number  INTEGER NOT NULL,
    records BLOB NOT NULL,
    PRIMARY KEY (device, number)
) WITHOUT ROWID;
