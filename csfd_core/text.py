"""Numbers in sentences: one study, three studies."""


def count(number: int, noun: str, verb: str = "", verbs: str = "") -> str:
    """Return a number with its noun, and the verb that goes with it.

    Args:
        number: How many.
        noun: In the singular.
        verb: In the singular; nothing follows the noun without it.
        verbs: In the plural, where it differs from ``verb``.
    """
    is_one = number == 1
    words = [str(number), noun if is_one else plural(noun)]
    if verb:
        words.append(verb if is_one else verbs or verb)
    return " ".join(words)


def plural(noun: str) -> str:
    """Return the plural of the nouns that csfd uses."""
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}e" if noun.endswith("a") else f"{noun}s"
