"""The words that may stand beside an answer of any question, in lower case and without accents."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STATING = _words(
    """
    am are be been called choose choosing chose chosen have is it's named pick picked say select selected suggest
    that's was were
    """
)
"""The answer of a sentence follows the last of these words, or a colon."""

FILLER = STATING | _words(
    """
    a about absolutely ai all alright an and answer answers any as asked assistant at awesome can certainly chat
    choice common confusion could course do does example examples excellent famous favorite favourite first for from
    fun given glad go good great happy hello help helpful here here's hey hi hmm how i i'd i'll i'm i've in
    interesting it its just know known language let let's like list listed look many may me mean mention mentioned
    misunderstanding model most my name names nice number of ok okay on one only option options or other our perfect
    please pleased popular possible possibly provide provided question random randomly request respond response
    right same sentence should simple simply single so some sorry specific such sure task thank thanks that the
    there there's these they think this those to type types understand us very we welcome well what what's which
    will with word would yes you you're you've your
    """
)
"""Words that are not part of an answer. A sentence of only these and words of the question (``Sure!``) is skipped."""

BEFORE = FILLER - _words("about as at from in like on or other such to types")
"""Fillers that may stand directly before an answer; the "in" of "Paris is in France" may not."""

AFTER = _words(
    """
    a also although am and are as at because being belongs but by can comes considered could due famous for from had
    has have in including is it it's its known located made not on or since so that the they this though used was
    were when where which while who whose with would
    """
)
"""Words that may follow an answer without punctuation; any other word makes it part of a longer name."""

JOINING = _words("a also an and as maybe or plus the then well")
"""Words between the answers of a list."""

NEGATION = _words("cannot except neither never no none nor not unlike without")
"""Words before an answer that negate it, as does any word that ends in n't."""
