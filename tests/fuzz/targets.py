"""The table: every parser that meets bytes from outside, with its bound and what must hold.

A target's `parse` takes bytes and returns a word; a refusal is one of our typed errors with a code
of the target's list. Anything else that happens, or a property that does not hold, is a finding.
"""

from __future__ import annotations

import fuzz_flash

from tests.fuzz import peers, repair, seeds, words
from tests.fuzz.target import Target


def _codes(text: str, prefix: str = "") -> frozenset[str]:
    return frozenset(prefix + word for word in text.split())


_CBOR = _codes(
    "size short trailing indefinite reserved not-shortest order duplicate key utf8 depth tag "
    "simple nan float-wide",
    "cbor-",
)
_COSE = _CBOR | _codes("cose-shape cose-alg")
_JSON = _codes("size depth syntax float int duplicate utf8 nodes", "json-")
_TUF = _codes(
    "metadata-size metadata-json metadata-shape metadata-type metadata-time spec-version order "
    "signature-twice root-threshold root-version root-expired timestamp-threshold "
    "timestamp-rollback timestamp-expired snapshot-threshold snapshot-rollback snapshot-version "
    "snapshot-length snapshot-hash snapshot-removed snapshot-expired targets-threshold "
    "targets-rollback targets-version targets-length targets-hash targets-expired targets-missing"
)
_APP = _codes("target-shape wrong-kind wrong-board wrong-index runtime-too-old")
_TARGETS = _JSON | _codes("metadata-shape") | _APP
_HTTP = _codes(
    "http-header http-length http-range http-status http-encoding too-large closed stalled slow"
)
_REFUSALS = _codes("shape size")
_JOURNAL = _codes("journal-worn journal-unborn journal-full journal-value mark-falls")
_DEVICE = _codes("provisioning-damaged")
_BOARD = _codes(
    "oversize syntax type name misaligned range misplaced unknown-region missing-region too-small "
    "out-of-flash overlap missing unknown"
)

TARGETS = (
    Target(
        "cbor",
        1100,
        seeds.cbor_items,
        _CBOR,
        "encodes to the same bytes; cbor2 and the host's codec agree",
        peers.cbor,
        words=words.CBOR_WORDS,
    ),
    Target(
        "cose",
        1100,
        seeds.envelopes,
        _COSE,
        "encodes to the same bytes; the gateway reads the same algorithm",
        peers.envelope,
        words=words.CBOR_WORDS + words.COSE_WORDS,
    ),
    Target(
        "json",
        4200,
        seeds.documents,
        _JSON,
        "`json` reads the same value, securesystemslib writes the same bytes",
        peers.json_text,
        words=words.JSON_WORDS,
    ),
    Target(
        "signed-json",
        4200,
        seeds.documents,
        _JSON,
        "the bytes that are verified are securesystemslib's",
        peers.signed_json,
        words=words.JSON_WORDS,
    ),
    Target(
        "tuf-metadata",
        4200,
        seeds.metadata,
        _TUF | _APP | _JSON,
        "unchanged trust after a refusal; python-tuf reads and verifies what is taken",
        peers.tuf_metadata,
        repair.metadata,
        words.JSON_WORDS,
        calls=(60_000, 40),
        examples=60,
    ),
    Target(
        "tuf-targets",
        4200,
        seeds.targets,
        _TARGETS,
        "python-tuf takes the same targets and delegations",
        peers.tuf_targets,
        words=words.JSON_WORDS,
        calls=(2000, 40),
    ),
    Target(
        "pem-key",
        1300,
        seeds.pem_keys,
        frozenset(),
        "`cryptography` reads the same key",
        peers.pem_key,
        words=words.PEM_WORDS,
    ),
    Target(
        "ecdsa-signature",
        160,
        seeds.ecdsa_signatures,
        frozenset(),
        "`cryptography` comes to the same verdict",
        peers.ecdsa_signature,
        words=words.DER_WORDS,
        calls=(20_000, 40),
        examples=60,
    ),
    Target(
        "counter",
        fuzz_flash.COUNTER_SIZE,
        seeds.counters,
        _codes("counter-worn"),
        "the same epoch twice; the next one is higher and stays; reads 12 times the region",
        repair=repair.stamps,
        words=(b"TMC1", b"\0\0\0\1\xff\xff\xff\xfe", b"\xff\xff\xff\xfe\0\0\0\1"),
        calls=(20_000, 40),
    ),
    Target(
        "journal",
        fuzz_flash.JOURNAL_SIZE,
        seeds.journals,
        _JOURNAL,
        "the same values twice; affirming and adding change no other; reads 12 times the region",
        repair=repair.journal,
        words=(
            b"TMJ1",
            bytes(16),
            b"\xff" * 16,
            b"\x56\4\0\5",
            b"\x4d\5\0\x20",
            b"\x53\1\0\0",
            b"~",
        ),
        calls=(60_000, 40),
    ),
    Target(
        "evidence",
        fuzz_flash.EVIDENCE_SIZE,
        seeds.rings,
        frozenset(),
        "the same head twice; the next number is higher; the host reads no older head",
        peers.evidence_sectors,
        repair.evidence,
        (b"\xff\xff\xff\xfe", b"\xff" * 64, b"\0\0\0\1"),
        calls=(20_000, 40),
    ),
    Target(
        "evidence-record",
        80,
        seeds.records,
        _codes("evidence-record"),
        "text is printable, detail at most 16 bytes",
        repair=repair.evidence,
    ),
    Target(
        "outbox",
        fuzz_flash.OUTBOX_SIZE,
        seeds.outboxes,
        _codes("outbox-worn"),
        "the same readings twice; each is acknowledged once; reads at most 16 times the region",
        repair=repair.outbox,
        words=(b"TMO1", b"\xff\1\0\0", b"\0\1\0\x20", b"\xff" * 16),
        calls=(60_000, 60),
    ),
    Target(
        "provisioning",
        1024,
        seeds.provisionings,
        _DEVICE,
        "written again it is the same, another is refused; no erase",
        repair=repair.provisioning,
        words=words.CBOR_WORDS,
        calls=(2000, 20),
    ),
    Target(
        "config",
        700,
        seeds.configs,
        _CBOR | _codes("config"),
        "encodes to the same bytes",
        words=(*words.CBOR_WORDS, b"http://", b":", b"\xd9\xa3", b"\xc2\xb2", b"/"),
    ),
    Target(
        "slot-header",
        4700,
        seeds.headers,
        _codes("header-magic header-shape header-size image-length image-digest"),
        "encodes to the same bytes; no image of another length or digest is taken",
        repair=repair.slot_header,
        words=words.CBOR_WORDS,
    ),
    Target(
        "boot-record",
        640,
        seeds.boot_records,
        _CBOR | _codes("slots-format no-target journal-full journal-value"),
        "no slot in use is ever a target",
        words=words.CBOR_WORDS,
        calls=(4000, 40),
    ),
    Target(
        "rejected-record",
        640,
        seeds.rejections,
        _CBOR | _codes("slots-format rejected rejected-full"),
        "a list of any shape judges or is refused",
        words=words.CBOR_WORDS,
        calls=(4000, 40),
    ),
    Target(
        "runtime-record",
        64 + 640,
        seeds.runtime_records,
        _CBOR
        | _codes(
            "runtime-format runtime-lost runtime-downgrade rt-unsettled runtime-digest "
            "rt-index runtime-unknown flash-bounds journal-full journal-value"
        ),
        "neither the runtime that runs nor the confirmed one is written",
        words=words.CBOR_WORDS,
        calls=(4000, 40),
    ),
    Target(
        "http",
        6000,
        seeds.answers,
        _HTTP,
        "http.client reads the same status, length and body; closed once; bounded reads",
        peers.http_response,
        words=words.HTTP_WORDS,
    ),
    Target(
        "dns",
        600,
        seeds.name_servers,
        _codes("resolve"),
        "at most 4 addresses, each one of figures",
        words=(b"\xc0\x0c", b"\x00\x01\x00\x01", b"\x81\x80", b"\xff\xff"),
    ),
    Target(
        "mqtt",
        6000,
        seeds.brokers,
        frozenset(),
        "ends with a typed error when the broker hangs up; at most one step a byte",
        peers.mqtt_broker,
        words=words.MQTT_WORDS,
        calls=(2000, 60),
    ),
    Target(
        "mux-board",
        6000,
        seeds.lines_to_board,
        frozenset(),
        "credit, windows and queues keep within their bounds",
        words=seeds.MUX_WORDS,
        calls=(60_000, 60),
    ),
    Target(
        "mux-bridge",
        6000,
        seeds.lines_to_bridge,
        frozenset(),
        "as the board's end; sends at most a burst a turn",
        words=seeds.MUX_WORDS,
        calls=(20_000, 80),
    ),
    Target(
        "device",
        1200,
        seeds.device_messages,
        frozenset(),
        "a refusal changes no session and sends nothing",
        words=(*words.CBOR_WORDS, *words.COSE_WORDS, b"KNOWN"),
        calls=(400_000, 40),
        examples=40,
    ),
    Target(
        "gateway",
        4200,
        seeds.gateway_messages,
        frozenset(),
        "a refusal is one counted code and changes no row; never `internal`",
        words=words.CBOR_WORDS + words.COSE_WORDS,
        calls=(40_000, 60),
        examples=100,
    ),
    Target(
        "host-cbor",
        1100,
        seeds.cbor_items,
        _REFUSALS,
        "encodes to the same bytes; the firmware agrees; JSON can hold it",
        peers.host_cbor,
        words=words.CBOR_WORDS,
        calls=(300, 40),
    ),
    Target(
        "host-beacon",
        100,
        seeds.host_beacons,
        _REFUSALS,
        "encodes to the same bytes",
        peers.host_beacon,
        words=words.CBOR_WORDS,
    ),
    Target(
        "host-evidence",
        fuzz_flash.EVIDENCE_SIZE,
        seeds.rings,
        _codes("region"),
        "numbers rise; all text is printable",
        repair=repair.evidence,
        calls=(4000, 20),
    ),
    Target(
        "romfs",
        2000,
        seeds.images,
        _codes("format"),
        "names are printable, paths bounded; MicroPython's own reader lists the same",
        words=(b"\xd2\xcd\x31", b"\x80", b"\x04", b"\x05", b"\x02", b"..", b"/", b"\xff" * 5),
    ),
    Target(
        "uf2",
        3000,
        seeds.uf2_files,
        _codes("uf2 wrong-chip"),
        "written again it reads the same",
        repair=repair.uf2,
        calls=(2000, 12),
    ),
    Target(
        "board-toml",
        17_000,
        seeds.board_files,
        _BOARD,
        "regions lie in the flash, on sectors, apart; tomllib reads it",
        peers.toml,
        words=words.TOML_WORDS,
        calls=(4000, 40),
        examples=80,
    ),
    Target(
        "bench-toml",
        66_000,
        seeds.bench_files,
        _codes(
            "bench-size bench-format bench-twice bench-board bench-power bench-link bench-wifi "
            "bench-address"
        ),
        "names and serial numbers come once; tomllib reads it",
        peers.toml,
        words=words.TOML_WORDS,
        calls=(4000, 40),
    ),
    Target(
        "names-toml",
        66_000,
        seeds.names_files,
        _codes("names nickname serial board"),
        "written again it is the same",
        peers.toml,
        words=words.TOML_WORDS,
        calls=(8000, 40),
    ),
    Target(
        "project-toml",
        66_000,
        seeds.project_files,
        _codes("settings"),
        "tomllib reads the same table",
        peers.toml,
        words=words.TOML_WORDS,
        calls=(4000, 40),
    ),
    Target(
        "inventory",
        4000,
        seeds.inventories,
        _codes("format full malformed key"),
        "every id is the hash of its key",
        words=words.JSON_WORDS,
        calls=(4000, 40),
    ),
    Target(
        "capture",
        8000,
        seeds.captures,
        frozenset(),
        "one printable line a message, whatever the file holds",
        words=words.JSON_WORDS + words.CBOR_WORDS,
        calls=(20_000, 60),
        examples=80,
    ),
)
BY_NAME = {target.name: target for target in TARGETS}
