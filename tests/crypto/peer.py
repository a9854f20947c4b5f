# Answers cases of cases.py on a board or under the unix port; `answers` is all the host calls.

from tidemark import ccm, ecdsa_p256, ed25519, rsa_pss, sha512, x25519
from tidemark.errors import CryptoError


def answer(case):
    """Return the outcome of one case, [operation, argument in hex...], as text."""
    try:
        return _answer(case[0], [bytes.fromhex(text) for text in case[1:]])
    except CryptoError as error:
        return error.code


def _answer(what, args):
    if what == "sign":
        seed, message = args
        public = ed25519.public_key(seed)
        return (public + ed25519.sign(seed, message, public)).hex()
    if what == "verify":
        return str(ed25519.verify(*args))
    if what == "x25519":
        return x25519.x25519(*args).hex()
    if what == "sha512":
        return sha512.digest(args[0]).hex()
    if what == "ccm":
        key, nonce, aad, text, size = args
        sealed = ccm.seal(key, nonce, aad, text, size[0])
        if ccm.open(key, nonce, aad, sealed, size[0]) != text:
            return "opened to another text"
        return sealed.hex()
    if what == "ccm-open":
        key, nonce, aad, sealed, size = args
        return ccm.open(key, nonce, aad, sealed, size[0]).hex()
    # A public key goes in as it is in update metadata; ours returns the key or None.
    scheme = {"p256": ecdsa_p256, "rsa-pss": rsa_pss}[what]
    key, message, signature = args
    return str(scheme.verify(scheme.decode(key.decode()), message, signature))


def answers(cases):
    """Return the answers of all cases."""
    return [answer(case) for case in cases]


def serve(lines, out):
    """Answer a case a line, JSON both ways."""
    import json

    for line in lines:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
