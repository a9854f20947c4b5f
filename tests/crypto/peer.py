# Answers cases of cases.py on a board or under the unix port; `answers` is all the host calls.

from tidemark import ed25519, sha512, x25519
from tidemark.errors import CryptoError


def answer(case):
    """Return the outcome of one case, [operation, argument in hex...], as text."""
    what = case[0]
    args = [bytes.fromhex(text) for text in case[1:]]
    if what == "sign":
        seed, message = args
        public = ed25519.public_key(seed)
        return (public + ed25519.sign(seed, message, public)).hex()
    if what == "verify":
        return str(ed25519.verify(*args))
    if what == "x25519":
        try:
            return x25519.x25519(*args).hex()
        except CryptoError as error:
            return error.code
    if what == "sha512":
        return sha512.digest(args[0]).hex()
    raise ValueError(what)


def answers(cases):
    """Return the answers of all cases."""
    return [answer(case) for case in cases]


def serve(lines, out):
    """Answer a case a line, JSON both ways."""
    import json

    for line in lines:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
