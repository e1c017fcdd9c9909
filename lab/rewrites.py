"""Turns of phrase that are put in plainer words before an idea is read: "no longer", "ten times", "1 in 10". Pure.

    rewritten("layer 0 is MLP-only")        # "first layer is without attention", but for spaces

Each rule has words of which one must stand in the text: a rule is compiled, and tried, only where one does.
Not covered: single words and names (`lab/vocabulary.py`).
"""

import re
from collections.abc import Callable
from functools import cache

from lab.vocabulary import NUMBER_WORDS

_PARTS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
    "sixteenth": 16,
}
_WORDS = "|".join(NUMBER_WORDS)
_NUMBER = r"(?:\.?\d(?:[\d.,_]*\d)?(?:e-?\d+)?(?:\s?%|\s?[kKmM]i?\b)?)"
_COUNT = rf"(?:\d[\d.]*|\.\d+|{_WORDS})"


def _value(text: str) -> float:
    """The number that a word or digits write."""
    return NUMBER_WORDS.get(text.lower()) or float(text.rstrip(".") or 0)


def _counted_in_words(match: re.Match[str]) -> str:
    """Ten times, two percent."""
    return f"{_value(match[1]):g}{'%' if 'cent' in match[0].lower() else 'x'}"


def _and_a_half(match: re.Match[str]) -> str:
    """Two and a half times."""
    return f"{_value(match[1]) + 0.5:g}{'x' if match[2] else ''}"


def _thousands(match: re.Match[str]) -> str:
    return f" {_value(match[1]) * NUMBER_WORDS[match[2].lower()]:g} "


def _parts(match: re.Match[str]) -> str:
    """Two thirds, three quarters."""
    return f" {_value(match[1]):g}/{_PARTS[match[2].lower().rstrip('s')]} "


def _part_of_the_span(match: re.Match[str]) -> str:
    """An eighth of the context."""
    return f" 1/{_PARTS[match[1].lower()]} span "


def _part_of_a_million(match: re.Match[str]) -> str:
    return f" {1 / _PARTS[match[1].lower()]:g}M "


def _step(match: re.Match[str]) -> str:
    """Multiplied by three, divided by two: the thing, and its factor."""
    count = _value(match[3]) or 1.0
    return f" {match[2]} x{count if match[1].lower().startswith('mul') else 1 / count:.6g} "


def _ten_to_the(match: re.Match[str]) -> str:
    return f" 1e-{_value(match[1]):g} "


def _of_what_it_was(match: re.Match[str]) -> str:
    """A share or a multiple of the present value as a factor: 20% is x0.2."""
    share = match[1].split()[-1].lower()
    if share in _PARTS:
        return f" x{1 / _PARTS[share]:.6g} "
    return (
        f" x{float(share[:-1]) / 100:g} " if share.endswith("%") else f" {share if share == 'twice' else 'x' + share} "
    )


def _length_of_decay(match: re.Match[str]) -> str:
    """What starts to decay after 40% of the run decays for 60% of it."""
    before = f" instead {100 - int(match[2])}%" if match[2] else ""
    return f" warmdown {100 - int(match[1])}%{before} "


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
    ("and", rf"\b({_COUNT}) and a half\b( times)?", _and_a_half),
    ("thousand hundred", rf"\b({_COUNT}) (thousand|hundred)\b", _thousands),
    ("times fold cent", rf"\b({_WORDS})[ -]?(?:times|fold|percent|per cent)\b", _counted_in_words),
    ("fold times", r"(\d)[ -]?(?:fold|times)\b", r"\1x"),
    ("cent", r"(\d) ?per ?cent\b", r"\1%"),
    ("half", r"\bhalf again as (?:much|large|big|wide|long|many|high)\b", " 1.5x "),
    ("ten 10", rf"\b(?:ten|10) to the (?:power (?:of )?)?(?:minus|negative|-) ?({_COUNT})\b", _ten_to_the),
    ("million", r"\b(?:an? )?(half|quarter)(?: of)?(?: an?)? million\b", _part_of_a_million),
    ("multipl divid",
     rf"\b(multipl(?:y|ied|ying)|divid(?:e|ed|ing))\b([^;,()]*?) by ({_COUNT})(?![\w%])"
     r"(?!.*\b(?:instead|rather|was)\b)", _step),
    ("tenth 10 ten", r"\bone in (?:10|ten)\b|\b1 in 10\b|\b(?:a|one|final|last|first|the) tenth\b", r" 10% "),
    ("thirds quarters fifths eighths tenths",
     rf"\b({_COUNT})[ -](thirds|quarters|fifths|eighths|tenths)\b", _parts),
    ("context sequence", r"\b(?:an?|one) (third|quarter|sixth|eighth|tenth|sixteenth) of the (?:\w+ )?"
     r"(?:context|sequence)\b(?: length)?", _part_of_the_span),
    ("context", r"\b(\d ?/ ?\d+) (?:of (?:the )?)?(?:full )?context\b", r" \1 span "),
    # What a value was, and a share of it.
    ("today", r"\btoday's\b", " present "),
    ("present current usual default original existing",
     rf"({_NUMBER}|half|twice|an? (?:third|quarter|fourth|fifth|sixth|eighth)) (?:x |of |times )?"
     r"(?:the|its|their) (?:present|current|usual|default|original|existing)"
     r"(?! ?\.?\d)(?: value| size| scale)?",
     _of_what_it_was),
    ("usual default current present original", r"\b(?:the |its |their )?(?:usual|default|current|present|original) "
     r"(?:value )?(?:of )?(?=\.?\d)", " from "),
    ("now today currently present", rf"\b(?:it(?: is|'s) )?({_NUMBER}) (?:now|today|currently|at present)\b",
     r" was \1 "),
    ("currently presently", rf"\b(?:it is )?(?:currently|presently)(?: at| is)? ({_NUMBER})", r" was \1 "),
    ("order", r"\b(?:by )?(?:an|one) order of magnitude\b", " by 10x "),
    ("order", r"\b(?:by )?two orders of magnitude\b", " by 100x "),
    ("head", rf"\b{_COUNT} heads of (\d+) (?:in place of|instead of|rather than|not) \w+ (?:heads )?of (\d+)\b",
     r" head dim \2 -> \1 "),
    ("head", r"\bheads? (?:of|at) (\d+)\b|\bheads? (\d+) (?:wide|channels?|dims?)\b", r" head dim \1\2 "),
    ("first", rf"\b(?:the )?first half (?:on|at|with) ({_NUMBER})(?: (\w+))?,? (?:and )?(?:then )?(?:the )?"
     rf"(?:rest|remainder|second half) (?:on|at|with) ({_NUMBER})", r" \2 \1 -> \3 "),
    ("sequence", rf"\b(?:short |long )?sequences? of ({_NUMBER})(?: tokens?)?", r" sequence length \1 "),
    ("sequence", r"\b(longer|shorter) (?:training )?sequences?\b(?! length)", r" \1 sequence length "),
    ("only", r"\b(?:in|at|during|for) train(?:ing)? only\b|\bonly (?:in|at|during|for) training\b", " trainonly "),
    ("only", r"\b(?:in|at|during|for) (?:eval|evaluation|validation|inference) only\b"
     r"|\bonly (?:in|at|during|for) (?:eval|evaluation|validation|inference)\b", " valonly "),
    ("after", r"\bafter (?:the )?first half\b", " last half "),
    ("where they", rf"\b(?:where )?(?:it|they) (?:was|were|is|are) (?={_NUMBER})", " was "),
    ("ramp turn scale bring dial crank push", r"\b(?:ramp|turn|scale|bring|dial|crank|push)(?:s|ing|ed)? "
     r"(?!(?:the )?(?:lr|learning))([\w ]{1,30}?) (up|down)\b", r" \2 \1 "),
    ("half", r"\bhalf (?:of )?(?:the )?(run|training|steps|budget)\b", r" 50% of \1 "),
    ("extra additional another", rf"\b(?:an? )?(?:extra|additional|another) ({_NUMBER})(?<=%)", r" raise by \1 "),
    ("off", r"(%) off\b", r"\1 lower "),
    ("% above over", r"(%) (?:above|over)\b", r"\1 higher than"),
    ("% below under", r"(%) (?:below|under)\b", r"\1 lower than"),
    # One thing and not another: the other is what it stands in place of.
    (", but", r"(?:,| but)+ not (?:the |in |on |with |just |only |for )*(?=[a-z])(?![^,;]*,)", " instead "),
    ("replac supplant place", r"(?<=\w )(?:replac(?:es|ing)|supplant(?:s|ing)|tak(?:es|ing) the place of)"
     r"\b(?![^;]*\b(?:with|by)\b)", " instead "),
    ("from ->", rf"\b(?:from )?(\w+) ({_NUMBER})(?: and|,)? (\w+) ({_NUMBER}) ?(?:->|to) ?\1 ({_NUMBER})(?: and|,)? "
     rf"\w+ ({_NUMBER})", r"\1 \2 -> \5; \3 \4 -> \6"),
    # Where a schedule starts and where it ends.
    ("start begin",
     rf"\b(?:start|begin)\w* (?:with |at |from |on |training )*([^;,]*?{_NUMBER})(?: tokens?)?(?:,? and| then|,)+ "
     r"(?:then )?(?:grow|ris|ramp|increas|go|mov|switch|decay|fall|drop|shrink|end)\w* (?:up |down |out )?"
     rf"(?:to|at) (?:the )?(?:full )?({_NUMBER})",
     r" \1 -> \2 "),
    ("instead rather not",
     r"\b(instead of|rather than|not) (?:decay\w*|go\w*|anneal\w*|fall\w*|cool\w*) (?:all the way )?(?:down )?to "
     r"(?:zero|0|nothing)\b", " instead 0 "),
    ("decay", rf"\bdecay\w* (?:only )?(?:for|over|during|in|across) (?:only )?(?:the )?(?:last|final) ({_NUMBER})"
     r"(?: of (?:the )?(?:training|run|steps))?", r" warmdown \1 "),
    ("warmdown", r"\b(?:last|final) half\b", " 50% "),
    ("faster slower speed",
     rf"\blearn\w*\b([^;,]*?)\b({_NUMBER}x|twice|half) (?:faster|slower|as fast|the rate|the speed)",
     r" lr \1 \2 "),
    ("rate", rf"\bat ({_NUMBER}x|twice|half) (?:the |its |their )?(?:rate|speed)\b", r" lr \1 "),
    ("model stream", r"\b(?:as wide as|the width of) (?:the )?(?:model|residual stream|stream)\b", " expansion "),
    ("heavy", r"\bheavy[- ]?ball(?: momentum)?\b", " without nesterov "),
    ("same unchanged", r": ", "; "),
    ("at end", r"\bat all\b|\b(?:to|until) the (?:very )?end\b", " "),
    ("stay remain", rf"\b(?:stays?|remains?)(?: fixed)?(?: at)? (?={_NUMBER})", " unchanged "),
    ("warm cool soft drop ramp", r"\b(warm|cool|soft|drop|ramp)[- ](up|down|cap|out)\b", r"\1\2"),
    ("way", r"\ball the way ", ""),
    ("not", r"\bnot (?=\.?\d)", " instead "),
    ("beta", r"(?<![^\W_])(beta)[ _]?([12])(?![\d.])", r"\1\2"),
    ("'s", r"(?<=\w)'s\b", ""),
    ("flash fa2 fa3", r"flash[- ]?(?:attention|attn)[- ]?\d|\bfa[23]\b", "flash attention"),
    ("start begin",
     r"\b(?:(?:lr |learning rate )?(?:decay|warmdown|cooldown|annealing) (?:start|begin)\w*|(?:start|begin)\w* "
     r"(?:the )?(?:lr |learning rate )?(?:decay|warmdown|cooldown|annealing)) (?:at|after) (\d\d?)%(?: of (?:the )?"
     r"(?:training|run|steps))?(?:,? (?:rather than|instead of|not|was|from)(?: at| after)? (\d\d?)%)?",
     _length_of_decay),
    # A decay that starts earlier is a longer one.
    ("earlier sooner", rf"{_START_OF_DECAY} (?:earlier|sooner)\b", "longer warmdown"),
    ("later", rf"{_START_OF_DECAY} later\b", "shorter warmdown"),
    ("relu", r"relu ?(?:\^|\*\*) ?2", "relu2"),
    ("factor", r"\bby an? factor (?:of )?(\d[\d.]*)", r" by \1x "),
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
    ("peak maximum initial",
     rf"^((?!.*\b(?:start|begin|warm|ris))[^;,]*?)(?:\b(?:finish|end|land|bottom)\w*(?: out)? )?"
     rf"\b(?:to|at) ({_NUMBER}) of (?:the |its )?(?:peak|max(?:imum)?|initial)(?: lr| learning rate)?\b",
     r"\1 final lr \2 "),
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
                text = " ".join(_compiled(pattern).sub(replacement, text).split())
                folded = text.casefold()
                break
    return text


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)
