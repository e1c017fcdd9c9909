"""Turns of phrase that are put in plainer words before an idea is read: "no longer", "ten times", "1 in 10". Pure.

    rewritten("layer 0 is MLP-only")        # "first layer is without attention", but for spaces

Each rule has words of which one must stand in the text: a rule is compiled, and tried, only where one does.
Not covered: single words and names (`lab/vocabulary.py`).
"""

import re
from collections.abc import Callable
from functools import cache

from lab.vocabulary import NUMBER_WORDS


def _counted_in_words(match: re.Match[str]) -> str:
    """Ten times, two percent."""
    count = {"hundred": 100.0}.get(match[1].lower()) or NUMBER_WORDS[match[1].lower()]
    return f"{count:g}%" if "percent" in match[0].lower() else f"{count:g}x"


def _rest(match: re.Match[str]) -> str:
    """What comes after 80% of the run is its last 20%."""
    return f"last {100 - int(match[1])}% of"


def _power_of_two(match: re.Match[str]) -> str:
    return str(2 ** int(match[1] or match[2]))


_START_OF_DECAY = r"\b(?:start|begin)(?:ing)? (?:the )?(?:lr |learning rate )?(?:decay|warmdown|cooldown)\w*(?: phase)?"
_BETAS, _PAIR = r"betas?[ =:]*", r"(\d?\.\d+), ?(\d?\.\d+)"
# Words of which one must be there; what is searched, whatever its case; what takes its place.
RULES: tuple[tuple[str, str, str | Callable[[re.Match[str]], str]], ...] = (
    ("exp run trial attempt idea test try",
     r"^\W*(?:exp|experiment|run|trial|attempt|idea|test|try)\s*#?\d+\s*[:.)-]", " "),
    ("not dont don't doesnt doesn't w/o", r"\b(?:do not|don'?t|doesn'?t|not using|w/o)(?!\w)", " without "),
    ("w/", r"\bw/(?!\w*/)", " with "),
    ("(with", r"\((with [^()]*)\)", r" and \1 "),  # no remark, but what is done besides
    ("warm cool soft drop ramp", r"\b(warm|cool|soft|drop|ramp)[- ](up|down|cap|out)\b", r"\1\2"),
    ("way", r"\ball the way ", ""),
    ("not", r"\bnot (?=\.?\d)", " instead "),
    ("beta", r"(?<![^\W_])(beta)[ _]?([12])(?![\d.])", r"\1\2"),
    ("'s", r"(?<=\w)'s\b", ""),
    ("flash fa2 fa3", r"flash[- ]?(?:attention|attn)[- ]?\d|\bfa[23]\b", "flash attention"),
    # A decay that starts earlier is a longer one.
    ("earlier sooner", rf"{_START_OF_DECAY} (?:earlier|sooner)\b", "longer warmdown"),
    ("later", rf"{_START_OF_DECAY} later\b", "shorter warmdown"),
    ("relu", r"relu ?(?:\^|\*\*) ?2", "relu2"),
    ("factor", r"\bby an? factor (?:of )?(\d[\d.]*)", r" by \1x "),
    ("times fold percent",
     r"\b(two|three|four|five|six|eight|ten|hundred)[ -]?(?:times|fold|percent)\b", _counted_in_words),
    ("fold times", r"(\d)[ -]?(?:fold|times)\b", r"\1x"),
    ("percent", r"(\d) ?percent\b", r"\1%"),
    ("*", r"(?<=\* )2 ?(?:\*\*|\^) ?(\d\d?)\b|(?<=\*)2 ?(?:\*\*|\^) ?(\d\d?)\b(?=.)", _power_of_two),
    ("half", r"\b(?:in|by) half\b", " half "),
    ("/", r"\b1 ?/ ?(?=[a-z(])", " inverse "),
    ("<<", r"\b1 ?<< ?(\d+)", r"2**\1"),
    ("1", r"(?<=[a-z]) ?[-+] ?1\b(?=\W*\))|\b1 ?- ?(?=[a-z(])", " "),
    ("//", r"// ?(\d+)", r" 1/\1 "),
    ("( math. torch. self. nn. f.", r"\(\w?\)|\bmath\.|\btorch\.|\bself\.|\bnn\.|\bF\.(?=[a-z])", " "),
    ("block layer", r"\b(?:block|layer)s? [01]\b", " first layer "),
    ("only", r"\bmlp[- ]only\b", " without attention "),
    ("only", r"\battention[- ]only\b|\battn[- ]only\b", " without mlp "),
    ("longer", r"\bno longer (?=\.?\d|by |with |using )", " instead "),
    ("longer more", r"\bno longer\b|\bno more\b|\bany ?more\b", " without "),
    ("start",
     r"\bstart(?:s|ing|ed)?\b(?=[^;]*\b(?:at|as|with)\b)(?![^;]*\b(?:lr|learning rate|warm|short)\w*\b)", " init "),
    ("skip", r"^\W*skip(?:ping)? (?!connection|the connection)|\bskip the\b", " remove "),
    ("top", r"\btop[- ]?(\d+|k)\b", r" topk \1 "),
    ("mixture", r"\bmixture of (\w+ )?experts?\b", r" moe \1 expert "),
    ("tenth 10 ten", r"\bone in (?:10|ten)\b|\b1 in 10\b|\b(?:a|one|final|last|first|the) tenth\b", r" 10% "),
    ("quarter", r"\b(?:three|3) quarters\b", " 75% "),
    ("tenths", r"\bnine tenths\b", " 90% "),
    ("swa", r"\bswa\b(?=.*\b(?:win|window|layers?|context)\b)", "sliding window attention"),
    ("allow let permit",
     r"\b(?:allow|let|permit)(?:s|ing)?\b(?=.*\b(?:across|cross).*\bdoc|.*\bcross.doc)", " without docmask "),
    ("every three", r"\bevery (?:third|3rd)\b|\bone (?:layer |block )?(?:in|out of) three\b", " thirdly "),
    ("every four", r"\bone (?:layer |block )?(?:in|out of) four\b|\bevery (?:fourth|4th)\b", " fourthly "),
    ("of", r"\b(\d{2,}) of (?:the )?(\d{3,})\b", r"\1/\2"),
    ("after", r"\bafter (?:the first )?(\d\d?)% of\b", _rest),
    ("before", r"\((\d+) before\)", r"(was \1)"),
    ("head", r"(?<=\band )head\b(?!s| dim| size)|\bthe head\b(?!s| dim| size)", " lm_head "),
    ("head", r"\b(?:each|every)(?: attention)? head(?:'s)?\b(?! ?(?:dim|channel|size|width))", " per head "),
    ("of", r"\bto (\d+)% of (?:the |its )?(?:peak|max(?:imum)?|initial) (?:lr|learning rate)\b", r" final lr \1% "),
    ("token", r"(\d\w*)[- ]tokens? (?:rows?|sequences?|context)\b", r" sequence length \1 "),
    ("row", r"\brows of (\d\w*)(?: tokens?)?\b", r" sequence length \1 "),
    ("wider narrower", r"\bwider (?=[\w ]*\b(?:init|std)\b)", "larger "),
    ("wider narrower", r"\bnarrower (?=[\w ]*\b(?:init|std)\b)", "smaller "),
    (".5", r"\b(\w+) ?(?:\*\*|\^) ?-0?\.5\b", r" inverse sqrt \1 "),
    ("million", r"\b(?:(?:one|a|1) )?million\b", " 1000000 "),
    ("follow", r"\bthat follows?\b", " after "),
    ("int", r"\bint([2-7])\b", r" \1 bit "),
    ("k", r"\bq, ?k,? ?(?:and|&) ?v\b|\bq/k/v\b", " qkv "),
    ("gpt", r"\bgpt-?2\b", " gpt2 "),
    ("l", r"\b(\d{1,2})L\b", r"\1 layers"),
    ("d", r"\bd(\d{3,4})\b", r"dim \1"),
    ("short easy hard long",
     r"\b(?:from )?(short|easy|hard|long)(?:est)? to (?:the )?(?:long|hard|easy|short)(?:est)?\b",
     r"\1 first"),
    ("sqrt", r"(?:1 ?/ ?|inverse )?\bsqrt\(2 ?\*? ?(?:n_?layers?|l|depth)\)", " depthinit "),
    ("tie", r"\btie (?=(?:the )?(?:weight decay|wd)\b)", " follow "),
    # Of a pair such as Adam's betas only the member that differs is changed.
    ("beta",
     rf"{_BETAS}\(?{_PAIR}\)?,?\s*\(?(?:was|instead of|from|rather than|not)\s*\(?{_PAIR}\)?", r"betas \3,\4 -> \1,\2"),
    ("beta", rf"{_BETAS}\(?(\d?\.\d+), ?(\d?\.\d+)\)?\s*(?:-+>|→|to)\s*\(?\1, ?(\d?\.\d+)\)?", r"beta2 \2 -> \3"),
    ("beta", rf"{_BETAS}\(?(\d?\.\d+), ?(\d?\.\d+)\)?\s*(?:-+>|→|to)\s*\(?(\d?\.\d+), ?\2(?!\d)\)?", r"beta1 \1 -> \3"),
)  # fmt: skip
_SPLIT = tuple((needles.split(), pattern, replacement) for needles, pattern, replacement in RULES)


def rewritten(text: str) -> str:
    """The text with every rule applied, in their order."""
    folded = text.casefold()
    for needles, pattern, replacement in _SPLIT:
        for needle in needles:
            if needle in folded:
                text = _compiled(pattern).sub(replacement, text)
                folded = text.casefold()
                break
    return text


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)
